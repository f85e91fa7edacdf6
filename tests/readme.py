"README.md from nbs/index.ipynb: `python tests/readme.py` writes it, `--check` fails where it would change."
import posixpath
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTE = "<!-- Made from nbs/index.ipynb by `make readme`; edit the notebook. -->\n\n"
HIDDEN = re.compile(r"^#\|\s*(hide|export|exports|default_exp)\b", re.M)


def from_top(text: str) -> str:
    "Links relative to nbs/ become links relative to the repository; web addresses, anchors and code stay."
    def turn(m): return m[1] + posixpath.normpath(posixpath.join("nbs", m[2]))
    parts = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.S)
    parts[::2] = [re.sub(r"""(\]\(|(?:src|href)=["'])(?![a-z]+:|#|/)([^)"'\s]+)""", turn, part) for part in parts[::2]]
    return "".join(parts)


def render(notebook: Path) -> str:
    "The notebook as Markdown, without cells marked hide or export, without the code of those marked `echo: false`, and without the lines of directives."
    import nbformat
    from nbconvert import MarkdownExporter
    nb = nbformat.read(notebook, as_version=4)
    nb.cells = [cell for cell in nb.cells if cell.cell_type != "raw" and not HIDDEN.search(cell.source)]
    for cell in nb.cells:
        if cell.cell_type == "markdown": cell.source = from_top(cell.source)
        elif re.search(r"^#\|\s*echo:\s*false", cell.source, re.M): cell.metadata["transient"] = {"remove_source": True}
        else: cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M)
        for output in cell.get("outputs", []):
            if text := output.get("data", {}).get("text/markdown"): output["data"]["text/markdown"] = from_top("".join(text))
    text, resources = MarkdownExporter().from_notebook_node(nb)
    if resources["outputs"]: raise ValueError(f"{notebook.name} has pictures among its outputs; link to files in figures/ instead")
    return NOTE + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    text, target = render(ROOT/"nbs"/"index.ipynb"), ROOT/"README.md"
    if "--check" not in sys.argv: target.write_text(text, encoding="utf-8")
    elif target.read_text(encoding="utf-8") != text: sys.exit("README.md is not what nbs/index.ipynb gives; run `make readme`")
