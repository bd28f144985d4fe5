"""Hugging Face, as far as sharing asks it."""

from pathlib import Path
from types import SimpleNamespace


class FakeHub:
    """What `push` asks of huggingface_hub, kept in memory; `kind` is that of its repositories."""

    def __init__(self, kind, *, exists=False, private=True):
        self.kind, self.exists, self.private, self.files = kind, exists, private, {}

    def HfApi(self):  # noqa: N802 - the library's name
        return self

    def create_repo(self, repo, *, repo_type, private, exist_ok):
        assert (repo, repo_type) == ("ada/push", self.kind)
        if self.exists and not exist_ok:
            raise ValueError("409 you already created this dataset repo")
        if not self.exists:
            self.private = private

    def repo_info(self, repo, *, repo_type):
        assert (repo, repo_type) == ("ada/push", self.kind)
        return SimpleNamespace(private=self.private)

    def upload_folder(self, *, repo_id, repo_type, folder_path, commit_message):
        assert (repo_id, repo_type) == ("ada/push", self.kind)
        self.said = commit_message
        self.files = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}
