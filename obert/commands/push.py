"""`obert push`: upload a model's folder to the Hugging Face Hub, which serves it with its card."""

from pathlib import Path

from obert.foundation.errors import UserError
from obert.records.record import MODEL
from obert.report.model_card import NAME

HIDDEN = ".*"  # what Snakemake keeps in a folder


def run(folder: Path, repository: str, upload: bool, private: bool = False) -> str:
    """Upload a model, or say what would be uploaded.

    Args:
        folder: the model's, or that of the run that made it.
        repository: `<owner>/<name>` on the Hub.
        upload: without it nothing leaves this machine.
        private: make a new repository a private one.

    Raises:
        UserError: there is no model with a card in the folder, the name is none, or the Hub refuses.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    chosen = folder / MODEL if (folder / MODEL).is_dir() else folder
    if not any(chosen.glob("*.safetensors")):
        raise UserError(f"{folder} holds no model: name a run's folder, or its folder '{MODEL}' of safetensors")
    if not (chosen / NAME).is_file():
        raise UserError(f"{chosen} has no model card ({NAME}): `python -m obert card --config ...` writes it")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"repository '{repository}': {error}. Allowed: <owner>/<name>") from None
    files = sorted(path for path in chosen.iterdir() if path.is_file() and not path.match(HIDDEN))
    listed = "\n".join(f"  {path.name:<28} {path.stat().st_size / 1e6:10,.2f} MB" for path in files)
    if not upload:
        return f"Would upload to {repository}:\n{listed}\nNothing was sent. Add --upload to do it."
    return f"Uploaded to {_uploaded(chosen, repository, private)}:\n{listed}"


def _uploaded(folder: Path, repository: str, private: bool) -> str:
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, ignore_patterns=[HIDDEN], commit_message="Upload model"
        )
    except Exception as error:  # of the Hub, of the client's own checks, of the network
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{repository} was not uploaded: {reason}. Check the name, and that you are logged in (`hf auth login`)"
        ) from None
    return str(url)
