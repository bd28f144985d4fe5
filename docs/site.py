"""What the site (mkdocs.yml) is made of besides the pages here: README, CHANGELOG and notebooks.

Links that leave docs/, to files that the site does not have, become their texts, once it is sure
that the files are there.
"""

import json
import logging
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)[^)]*\)")
LOG = logging.getLogger("mkdocs.site")  # what it warns of, --strict makes an error


def on_files(files, config):
    """Add the pages that are made of other files."""
    pages = {"index.md": from_readme((ROOT / "README.md").read_text())}
    pages["changelog.md"] = (ROOT / "CHANGELOG.md").read_text()
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        pages[f"notebooks/{path.stem}.md"] = from_notebook(json.loads(path.read_text()))
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown, page, **_):
    """The page without links that leave the site."""

    def replaced(found):
        target = ((ROOT / "docs" / page.file.src_uri).parent / found[2]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return found[0]
        if not target.exists():
            LOG.warning("%s links to %s, which is not there", page.file.src_uri, found[2])
        return found[1]

    return LINK.sub(replaced, markdown)


def from_readme(text):
    """README as a page beside those of docs/."""
    here = text.replace("](docs/", "](").replace("](CHANGELOG.md)", "](changelog.md)")
    return here.replace(".ipynb)", ".md)")


def from_notebook(notebook):
    """A notebook as a page: its texts, code, and what the code printed."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else fenced(source))
        for output in cell.get("outputs", ()):
            parts += list(shown(output))
    return "\n\n".join(parts) + "\n"


def fenced(source):
    """A cell's code: Python, or commands."""
    first, _, rest = source.partition("\n")
    return f"```bash\n{rest}\n```" if first.startswith("%%bash") else f"```python\n{source}\n```"


def shown(output):
    """An output: a picture, where it has one, else its text."""
    data = output.get("data", {})
    if "image/png" in data:
        png = "".join(data["image/png"]).replace("\n", "")
        yield f'<img alt="What the cell draws" src="data:image/png;base64,{png}">'
    elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
        yield f"```text\n{text}\n```"
