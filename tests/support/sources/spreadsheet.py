"""The smallest .xlsx file with one sheet of text."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

_OFFICE = "http://schemas.openxmlformats.org"
_KINDS = f"{_OFFICE}/officeDocument/2006/relationships"
_RELATED = f'<Relationships xmlns="{_OFFICE}/package/2006/relationships">%s</Relationships>'
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_OFFICE}/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/></Types>',
    "_rels/.rels": _RELATED % f'<Relationship Id="r" Type="{_KINDS}/officeDocument" Target="xl/workbook.xml"/>',
    "xl/_rels/workbook.xml.rels": _RELATED
    % f'<Relationship Id="r" Type="{_KINDS}/worksheet" Target="worksheets/s.xml"/>',
    "xl/workbook.xml": f'<workbook xmlns="{_OFFICE}/spreadsheetml/2006/main" '
    f'xmlns:r="{_KINDS}"><sheets><sheet name="Sheet1" sheetId="1" r:id="r"/></sheets>'
    "</workbook>",
}


def write_spreadsheet(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    """Write rows of text; returns `path`."""
    cells = [
        [f'<c t="inlineStr"><is><t xml:space="preserve">{escape(text)}</t></is></c>' for text in row] for row in rows
    ]
    lines = "".join(f"<row>{''.join(row)}</row>" for row in cells)
    sheet = f'<worksheet xmlns="{_OFFICE}/spreadsheetml/2006/main"><sheetData>{lines}</sheetData></worksheet>'
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**_PARTS, "xl/worksheets/s.xml": sheet}.items():
            archive.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{content}')
    return path
