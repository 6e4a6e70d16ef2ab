"""Every Python block of the README and the documentation runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from mktestdocs import check_md_file

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = {"trainer.md": "transformers"}  # for who installs less than the dev extra


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its open shards to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")  # Lightning's use of torch
@pytest.mark.filterwarnings("ignore:.*does not have many workers")  # Lightning, of more than two cores
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # Lightning, of a page that resumes there
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name], reason=f"{page.name} needs {NEEDS[page.name]}: pip install 'patchpack[trainer]'")
    monkeypatch.chdir(tmp_path)
    check_md_file(fpath=page, memory=True)
