#!/bin/sh
# nbconvert 7.17.2: alternative text of an image output survives in one of its HTML templates only.
#
# An image output may carry its alternative text as output metadata, {"image/png": {"alt": ...}}, which is what `display(..., metadata=...)`
# stores. Guessed: every HTML template writes it, as the templates share one exporter, which counts the images without. Seen: `classic` writes it;
# `lab`, the default, does not read it, writes "No description has been provided for this image", and the exporter then warns that alternative text is missing.
# Alternative text in the cell's metadata fares the same.
#
# Output seen:
#   classic: alt of the output kept, alt of the cell kept, warned of 0 images
#   lab: alt of the output lost, alt of the cell lost, warned of 2 images
set -e
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check nbconvert==7.17.2 nbformat==5.11.1 jinja2==3.1.6
cat > "$place/try.py" <<'PY'
import logging
import re

import nbformat
from nbconvert import HTMLExporter

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
def output(**metadata): return nbformat.v4.new_output("display_data", {"image/png": PIXEL}, metadata=metadata)
cells = [nbformat.v4.new_code_cell("1", outputs=[output(**{"image/png": {"alt": "a face with a hole"}})]),
         nbformat.v4.new_code_cell("2", outputs=[output()], metadata={"alt": "a face without"})]
lines = []
for template in ("classic", "lab"):
    said = []
    handler = logging.Handler(); handler.emit = lambda record: said.append(record.getMessage())
    exporter = HTMLExporter(template_name=template)
    exporter.log.addHandler(handler); exporter.log.setLevel(logging.WARNING)
    html, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=cells))
    kept = {"output": 'alt="a face with a hole"' in html, "cell": 'alt="a face without"' in html}
    missing = sum(int(n) for text in said for n in re.findall(r"missing on (\d+)", text))
    exporter.log.removeHandler(handler)
    lines.append(f"{template}: " + ", ".join(f"alt of the {who} {'kept' if ok else 'lost'}" for who, ok in kept.items()) + f", warned of {missing} images")
print(*lines, sep="\n")
assert lines == ["classic: alt of the output kept, alt of the cell kept, warned of 0 images",
                 "lab: alt of the output lost, alt of the cell lost, warned of 2 images"], lines
PY
"$place/env/bin/python" "$place/try.py"
