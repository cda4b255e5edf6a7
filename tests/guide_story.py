"""
How every command of the operator's guide is run: in which order, how it ends, and what is seen of it.

What the commands find in their folder is made in ``guide_worlds.py``; they are read from the guide in
``guide_lines.py``. A command that the guide has and this file has not fails ``tests/unit/test_readme_commands.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Step:
    """
    One command as the guide has it; placeholders are filled in when it is run.

    ``code`` is the exit code that the guide implies. ``says`` is a regular expression for what it prints; ``leaves`` a
    file that was not there before, or is another one afterwards.
    """

    line: str
    says: str
    leaves: str | None = None
    code: int = 0


@dataclass(frozen=True, slots=True)
class Chapter:
    """
    Commands that are run one after the other in one folder.

    ``goes_on_from`` names the chapter that leaves the bank of this one; ``on_servers``: with Kafka and Redis.
    """

    steps: tuple[Step, ...]
    goes_on_from: str | None = None
    on_servers: bool = False


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """
    A test that runs the command as a process: in which file, by which words, and why not here.
    """

    file: str
    words: str
    why: str


ADDED: Final = "touchstone bank add bank review.csv"
"""No line of the guide, but what it says of the one before: `bank add` accepts the file."""

_ENCODER: Final = "--set encoder.model=ViT-L-14-quickgelu/openai"
_FORGOTTEN: Final = r"^1 values removed from archive, for 1 hashes"
_PEERS: Final = (
    "--peer ../shared/data/peers/WildRF_Tiny_LaDeDa.pth --peer ../shared/data/peers/ForenSynth_Tiny_LaDeDa.pth"
)

_BANKS: Final = Chapter(
    (
        Step("touchstone bank build references/ --out bank", r"48 references \(24 ai_generated, 24 real\)", "bank"),
        Step("touchstone fit bank", r"calibrated on 24 real pictures \(out of fold\)", "bank/judgement.json"),
        Step("touchstone bank inspect bank", r"generators +checker 12, plasma 12"),
        # As the guide says of weak encoders: to the starter, drawn pictures of two labels are near duplicates.
        Step("touchstone bank verify bank", r"(?s)near duplicates: .*recall 1\.0000", code=1),
        Step("touchstone bank add bank more/", r"56 references .*(?s:.*)checker, 4 new: recognised"),
        Step("touchstone fit bank --calibration other/", r"calibrated on 24 real pictures \(separate\)", "bank"),
        Step(
            "touchstone bank add bank --label ai_generated --generator flux-9 new-images/ --calibration other/",
            r"(?s)flux-9, 8 new: recognised \d+% before, \d+% now.*calibrated on other pictures",
        ),
        Step(
            "touchstone bank add BANK --label ai_generated --generator NAME images/",
            r"72 references .*(?s:.*)flux-8, 8 new: recognised",
        ),
        Step("touchstone fit BANK --out FOLDER", r"bank bank \d+ at other-heads", "other-heads/judgement.json"),
        Step("touchstone evaluate DIR|CSV --bank bank", r"8 real and 16 generated pictures(?s:.*)│ fused +│"),
    )
)

_OPERATION: Final = Chapter(
    (
        Step("touchstone topics plan", r"test-\S+-uploads +create(?s:.*)`touchstone topics apply` does this", code=1),
        Step("touchstone topics apply", r"Done at "),
        Step(f"touchstone run --set bank.path=bank {_ENCODER}", r'"event": ?"worker.stopped"', "embeddings.sqlite"),
        Step("touchstone doctor --json", r'"failed": 0'),
        Step(
            "touchstone replay --topic image-uploads --from 2026-11-20T00:00:00Z --to end --policy candidate.toml "
            "--out replayed.jsonl",
            r"replayed +│ 6 .*\n.*from embeddings +│ 6 .*\n.*fetched +│ 0 ",
            "replayed.jsonl",
        ),
        Step(
            "touchstone diff topic:moderation-verdicts#mode=live replayed.jsonl --within-b --out diff.html "
            "--max-flips 0.5%",
            r"6 events compared: 0 flips(?s:.*)max-flips",
            "diff.html",
        ),
        Step("touchstone feedback collect --images pictures/ --out review.csv", r"2 +agreed", "review.csv"),
        Step(ADDED, r"74 references"),
        Step("touchstone forget post/8412/1 --publish", rf"{_FORGOTTEN}(?s:.*)1 deletions published"),
        Step(
            "touchstone forget post/8412/1 --search-verdicts --publish",
            r"(?s)(?=.*1 hashes found in )(?=.*1 deletions published)",
        ),
        Step("touchstone forget CONTENT_ID --publish", rf"{_FORGOTTEN}(?s:.*)1 deletions published"),
        Step("touchstone forget CONTENT_ID --search-verdicts", r"1 hashes found in "),
        Step(
            "touchstone forget CONTENT_ID --search-verdicts --publish",
            r"(?s)(?=.*1 hashes found in )(?=.*1 deletions published)",
        ),
        Step("touchstone forget --sha256 HEX --scan", _FORGOTTEN),
        Step("touchstone run --overlay config/local.toml", r'"event": ?"worker.stopped"'),
    ),
    goes_on_from="banks",
    on_servers=True,
)

_RELEASES: Final = Chapter(
    (
        Step(
            "touchstone bank publish bank --to PLACE --canaries canaries/", r"published bank bank (\d+) as release \1"
        ),
        Step("touchstone bank releases PLACE", r"(?s)canaries.*72 .* yes .*older +active"),
        Step("touchstone bank activate PLACE RELEASE", r"release \d+ holds in banks"),
        Step("touchstone bank rollback PLACE", r"release older holds in banks"),
        Step("touchstone bank disable PLACE --generator flux-9", r"disabled generators: flux-9"),
        Step(
            'touchstone bank disable bank --generator flux-9 --reason "wrong labels" '
            "--set bank.quarantine_path=off.json",
            r"8 of 72 references are left out(?s:.*)disabled generator flux-9, .*wrong labels",
            "off.json",
        ),
        Step(
            "touchstone bank disable bank --list --set bank.quarantine_path=off.json",
            r"8 of 72 references are left out by off\.json",
        ),
        Step(
            "touchstone bank disable bank --generator flux-9 --enable --set bank.quarantine_path=off.json",
            r"0 of 72 references are left out",
        ),
        Step("touchstone bank keygen key.pem", r"made key [0-9a-f]+ in key\.pem", "key.pem"),
        Step("touchstone bank sign bank --key key.pem", r"bank \S+ is signed by key", "bank/manifest.sig"),
        Step("touchstone bank activate PLACE RELEASE --key key.pem", r"release \d+ holds in banks"),
    ),
    goes_on_from="banks",
)

CHAPTERS: Final[Mapping[str, Chapter]] = {
    "banks": _BANKS,
    "operation": _OPERATION,
    "releases": _RELEASES,
    "a first look": Chapter(
        (
            Step("touchstone scan photo.jpg --json", r'^\{"verdict_id": ?"[0-9a-f-]{36}".*\}\n$'),
            Step("touchstone scan pictures/", r"6 verdicts(?s:.*)\d decided"),
            Step("touchstone explain photo.jpg --out review.png", r"drawn in review\.png", "review.png"),
            Step("touchstone config show", r"encoder\.device +cpu +config/worker\.toml"),
        )
    ),
    "a question of one's own": Chapter(
        (
            Step(
                "touchstone bank build pictures/ --out bank --labels photo,screenshot --positive screenshot",
                r"6 references \(3 photo, 3 screenshot\)",
                "bank",
            ),
        )
    ),
    "speed and size": Chapter(
        (
            Step("touchstone bench agreement --precision bf16 --count 20 --min-agreement 0.95", r"agreement"),
            Step(
                "touchstone bench simulate --picture-ms 12 --workers 1,2,4,8,16,32 --partitions 64 --skew 0.8",
                r"32 workers: share of linear",
            ),
            Step(
                "touchstone bench size --peak-per-s 2000 --mean-per-s 500 --known 0.3 --new-per-s 80 "
                "--known-per-s 2500",
                r"workers, one device each +\d+(?s:.*)Redis memory",
            ),
        )
    ),
    "the authors' sets": Chapter(
        (
            Step(
                f"touchstone bank build progan_train/ --out bank --crops 1 --no-perturbation {_ENCODER}",
                r"20 references \(10 ai_generated, 10 real\)",
                "bank",
            ),
            Step(
                "touchstone evaluate datasets/test --also diffusion_datasets --layout ufd --bank bank " + _ENCODER,
                r"│ progan +│ +2 │ +2 │(?s:.*)│ dalle +│ +3 │ +2 │",
            ),
        )
    ),
    "made anew": Chapter(
        (
            Step(
                "touchstone bank build made/references.csv --out worker/shipped/starter/bank --id starter --crops 8 "
                "--max-side 1024 --reencode 90 --no-realism --no-perturbation --replace",
                r"bank starter 1 .*36 references \(24 ai_generated, 12 real\)",
                "worker/shipped/starter/bank",
            ),
            Step(
                "touchstone fit worker/shipped/starter/bank --calibration made/calibration.csv",
                r"calibrated on 20 real pictures \(separate\)",
                "worker/shipped/starter/bank/judgement.json",
            ),
            Step("touchstone evaluate made/unseen.csv --bank starter", r"8 real and 16 generated pictures judged"),
            Step(
                f"touchstone evaluate made/unseen.csv --bank starter --out report.html {_PEERS}",
                r"(?s)8 real and 16 generated pictures judged.*WildRF_Tiny_LaDeDa",
                "report.html",
            ),
            Step(
                "touchstone evaluate ../shared/data/images.csv --heldout-tier matched --crops 8 --out report.html "
                + _PEERS,
                r"(?s)16 real and 16 generated pictures judged.*ForenSynth_Tiny_LaDeDa",
                "report.html",
            ),
        )
    ),
}

FILLED_IN: Final[Mapping[str, str]] = {
    # Weights that a test cannot download; the starter goes through the same option.
    "ViT-L-14-quickgelu/openai": "starter",
    "BANK": "bank",
    "FOLDER": "other-heads",
    "NAME": "flux-8",
    "DIR|CSV": "made/unseen.csv",
    "PLACE": "banks",
    "CONTENT_ID": "post/8412/2",
}
"""What stands for something else in the guide, and is the same in every world."""

LEFT_TO_WORLDS: Final = ("2026-11-20T00:00:00Z", "image-uploads", "moderation-verdicts", "HEX", "RELEASE")
"""What each world fills in by itself."""

ELSEWHERE: Final[Mapping[str, Elsewhere]] = {
    "touchstone dev": Elsewhere(
        "tests/integration/test_demo.py", '"-m", "worker", "dev"', "it stays in the foreground until SIGINT"
    ),
    "touchstone bank build --engine ray": Elsewhere(
        "tests/integration/test_bank_build_ray.py", '"--engine", "ray"', "it needs a cluster"
    ),
    "touchstone stress --rate 200 --seconds 60 --max-p99-ms 1500": Elsewhere(
        "tests/integration/test_stress.py", 'stress("--uploads", UPLOADS', "it needs a worker that runs meanwhile"
    ),
    "touchstone bench e2e": Elsewhere("tests/integration/test_bench_e2e.py", "e2e, [", "it takes minutes"),
    "touchstone bench stages": Elsewhere("tests/integration/test_bench_e2e.py", "stages, [", "it needs servers"),
    "touchstone bench latency": Elsewhere("tests/integration/test_stress.py", "LatencyBench(", "it takes minutes"),
    "touchstone bench scaling": Elsewhere("tests/integration/test_bench_fleets.py", "scaling, [", "it needs servers"),
    "touchstone bench e2e --no-batched --uploads 1280 --cached-uploads 6000 --rounds 2": Elsewhere(
        "tests/integration/test_bench_e2e.py", "e2e, [", "it takes minutes"
    ),
    "touchstone bench startup --precision bf16 --uploads 100 --rounds 2": Elsewhere(
        "tests/integration/test_bench_startup.py", 'bench("--model"', "it needs servers and takes a minute"
    ),
    "touchstone bench latency --precision bf16 --rounds 2 --set batch.size=8": Elsewhere(
        "tests/integration/test_stress.py", "LatencyBench(", "it takes minutes"
    ),
    "touchstone bench scaling --precision bf16 --rounds 2": Elsewhere(
        "tests/integration/test_bench_fleets.py", "scaling, [", "it needs servers"
    ),
    "touchstone bench bank --precision bf16 --sizes 1000000": Elsewhere(
        "tests/unit/test_bench_bank.py", '"--sizes", "1000', "its largest bank takes minutes"
    ),
    "touchstone bench sweep": Elsewhere("tests/integration/test_bench_fleets.py", "sweep, [", "it needs servers"),
    "touchstone bench report": Elsewhere(
        "tests/unit/test_bench_report.py", "bench_report.report, [", "it takes minutes"
    ),
    "touchstone bench report --device cuda --out gpu.md": Elsewhere(
        "tests/unit/test_bench_report.py", "bench_report.report, [", "it needs a GPU"
    ),
    "touchstone bench decode --device cuda": Elsewhere(
        "tests/unit/test_bench_decode.py", "decode, [", "it needs a GPU"
    ),
    "touchstone bench e2e --peer-python peer/bin/python": Elsewhere(
        "tests/unit/test_bench_peer.py", "running_peer(", "it needs another environment"
    ),
    "touchstone bench agreement --resize torch": Elsewhere(
        "tests/unit/test_bench_agreement.py", '"--resize"', "it takes a minute"
    ),
    "touchstone bench cache": Elsewhere("tests/integration/test_bench_fleets.py", "cache, [", "it needs servers"),
    "touchstone bench startup": Elsewhere(
        "tests/integration/test_bench_startup.py", 'bench("--model"', "it needs servers and takes a minute"
    ),
    "touchstone bench encode": Elsewhere(
        "tests/unit/test_bench_encode.py", '["encode", "--device"', "its model is large"
    ),
    "touchstone bench decode": Elsewhere("tests/unit/test_bench_decode.py", "decode, [", "it takes a minute"),
    "touchstone bench image-size": Elsewhere(
        "tests/unit/test_bench_decode.py", "image_size_command, [", "it takes a minute"
    ),
    "touchstone bench bank": Elsewhere(
        "tests/unit/test_bench_bank.py", '"--sizes", "1000', "its largest bank takes minutes"
    ),
    "touchstone bank announce PLACE": Elsewhere(
        "tests/integration/test_bank_control.py", 'touchstone("announce", ', "it needs workers that follow a topic"
    ),
    "touchstone bank index": Elsewhere(
        "tests/unit/test_bank_index.py", 'touchstone("index", ', "it needs more references than the guide has"
    ),
    "touchstone dlq list --code FETCH_UPSTREAM": Elsewhere(
        "tests/integration/test_dlq.py", 'dlq("list", "--json", "--code", "fetch_upstream"', "it needs dead letters"
    ),
    "touchstone dlq redrive --code FETCH_UPSTREAM --rate 50 --dry-run": Elsewhere(
        "tests/integration/test_dlq.py", '"--dry-run"', "it needs dead letters"
    ),
    "touchstone fetch https://cdn.example/cat.jpg": Elsewhere(
        "tests/unit/test_cli_fetch.py", 'touchstone(url, "--json"', "it needs a web server with a certificate"
    ),
    "make soak": Elsewhere("tests/soak/test_short_forms.py", "campaigns", "it takes hours; its short forms are tests"),
    "make demo": Elsewhere(
        "tests/integration/test_demo.py", '"-m", "worker", "demo"', "it brings servers of its own and takes a minute"
    ),
}
"""Commands that other tests run as processes already."""

DRY: Final[Mapping[str, str]] = {
    # In earnest these install, or run this very test: `make -n` prints what would be run, and that is checked.
    "make setup": r"pip install .*--editable \.",
    "make demo": r"\.venv/bin/touchstone demo *$",
    "make demo IMAGES=folder": r'\.venv/bin/touchstone demo --images "folder"$',
    "make test": r'\.venv/bin/python -m pytest .*-m "not alone"\nOMP_NUM_THREADS=1 .* -m pytest -m alone$',
    "make check": r"\.venv/bin/python -m pytest -q tests/unit tests/property tests/architecture$",
    "make soak": r"-m tests\.soak *$",
    "make promtool": r"fetch_promtool\.sh$",
    "make help": r"awk ",
}
"""What ``make -n`` must print of each target."""

LINES: Final = tuple(step.line for chapter in CHAPTERS.values() for step in chapter.steps)
