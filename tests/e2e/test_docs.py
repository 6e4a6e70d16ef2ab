"""Every Python block of the README and the documentation runs."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAST = [ROOT / "README.md", ROOT / "docs" / "quickstart.md"]
OTHERS = [page for page in sorted((ROOT / "docs").rglob("*.md")) if page not in FAST]
NEEDS = {"trainer.md": "transformers"}  # for who installs less than the dev extra


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its open shards to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")  # Lightning's use of torch
@pytest.mark.filterwarnings("ignore:.*does not have many workers")  # Lightning, of more than two cores
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # Lightning, of a page that resumes there
@pytest.mark.parametrize(
    "page",
    [*FAST, *(pytest.param(page, marks=pytest.mark.docs) for page in OTHERS)],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name], reason=f"{page.name} needs {NEEDS[page.name]}: pip install 'patchpack[trainer]'")
    from mktestdocs import check_md_file

    monkeypatch.chdir(tmp_path)
    check_md_file(fpath=page, memory=True)
