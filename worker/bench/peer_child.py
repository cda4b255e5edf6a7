"""
A public peer in a process and an environment of its own: clip-retrieval's reader and mapper over a folder of pictures.

Run by the interpreter of that environment, in which Touchstone is not installed: this file imports nothing of it. It is
told a folder in each line of standard input, and answers in a line of JSON behind a mark.
"""

import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

MARK = "peer: "
"""Before each line that is meant for whoever started this; the peer prints lines of its own."""


def cpu_s() -> float:
    """
    CPU seconds of this process and of the loaders that it has waited for.
    """
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


def whole_checkpoint(arch: str, visual: Path, out: Path) -> None:
    """
    A checkpoint that open_clip loads by itself: these weights for the image tower, and any for the text's.
    """
    open_clip, safe = import_module("open_clip"), import_module("safetensors.torch")
    model = open_clip.create_model(arch, pretrained=None)
    tensors = {name.removeprefix("visual."): one for name, one in safe.load_file(visual).items()}
    model.visual.load_state_dict(tensors)
    safe.save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, out)


class FirstBegun:
    """
    The peer's own transform, and when the first picture of all was given to it, in whichever process; 0.0 before.
    """

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self._transform = transform
        self._at_s = multiprocessing.Value("d", 0.0)

    def __call__(self, image: Any) -> Any:  # noqa: ANN401 - the peer's
        """
        What the peer makes of it.
        """
        if not self._at_s.value:
            with self._at_s.get_lock():
                self._at_s.value = self._at_s.value or time.monotonic()
        return self._transform(image)

    @property
    def at_s(self) -> float:
        """
        On the monotonic clock, which is the machine's and not a process's.
        """
        return float(self._at_s.value)


def embedded(job: dict[str, Any], preprocess: Any, tokenizer: Any, mapper: Any, folder: str) -> dict[str, Any]:  # noqa: ANN401 - the peer's
    """
    How many pictures of a folder were embedded, in which time, and the vector of the first by name.

    The clock runs from the first picture that a loader begins to the last vector: the reader starts its loaders anew
    for each folder, which whoever embeds a corpus pays for once. Their CPU time has that start in it.
    """
    reader_of = import_module("clip_retrieval.clip_inference.reader").FilesReader
    used_s, first_begun = cpu_s(), FirstBegun(preprocess)
    reader = reader_of(
        lambda keys: keys, first_begun, tokenizer, folder, job["batch"], job["loaders"], enable_text=False
    )
    count, first, done_s = 0, None, 0.0
    for batch in reader:
        vectors = mapper(batch)["image_embs"]
        first = vectors[0].tolist() if first is None else first
        count, done_s = count + len(vectors), time.monotonic()
    return {"images": count, "wall_s": done_s - first_begun.at_s, "cpu_s": cpu_s() - used_s, "first": first}


def main() -> None:
    """
    Load as the peer does, say so, and embed a folder for every line.
    """
    job = json.loads(sys.argv[1])
    # First of all: without it nothing else is worth doing.
    mapper_of = import_module("clip_retrieval.clip_inference.mapper").ClipMapper
    checkpoint = Path(job["checkpoint"])
    whole_checkpoint(job["arch"], Path(job["visual"]), checkpoint)
    name = f"open_clip:{job['arch']}/{checkpoint}"
    mapper = mapper_of(
        enable_image=True,
        enable_text=False,
        enable_metadata=False,
        use_mclip=False,
        clip_model=name,
        use_jit=False,
        mclip_model="",
    )
    # As the mapper asked for it, word for word: it is cached by how it was asked, and not loaded again.
    _, preprocess, tokenizer = import_module("all_clip").load_clip(
        clip_model=name, use_jit=False, warmup_batch_size=1, clip_cache_path=None
    )
    print(MARK + json.dumps({"ready": True}), flush=True)  # noqa: T201 - how the parent learns it
    for line in sys.stdin:
        found = embedded(job, preprocess, tokenizer, mapper, line.strip())
        print(MARK + json.dumps(found), flush=True)  # noqa: T201 - likewise


if __name__ == "__main__":
    main()
