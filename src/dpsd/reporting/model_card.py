"""The model card of a student, as the Hugging Face Hub shows it; needs the extra ``huggingface``.

It is made with the card tools of ``huggingface_hub``. What it says about privacy is what the
certificate says.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from dpsd.errors import ConfigError
from dpsd.extras import how_to_install
from dpsd.privacy.accounting import format_epsilon
from dpsd.privacy.records.certificate import NOT_PRIVATE, TRUST, Certificate
from dpsd.reporting.agreement import final_probe
from dpsd.runs.directory import RunDirectory
from dpsd.synthesis.names import published_name

#: What Markdown would take for markup in somebody's words.
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~])")
#: The most names of classes that a card lists; ``config.json`` has them all.
_NAMES_SHOWN = 100


def model_card(
    run: RunDirectory,
    certificate: Certificate,
    *,
    stated: Mapping[str, Any],
    measured: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the text of the model card.

    Args:
        run: a finished run.
        certificate: its certificate.
        stated: what exported files state about the student.
        measured: evaluations of the student, as ``dpsd evaluate --json`` prints them.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        from huggingface_hub import EvalResult, ModelCard, ModelCardData
    except ImportError:
        raise ConfigError(
            f"a model card needs huggingface_hub: {how_to_install('huggingface')}"
        ) from None
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=published_name(found["data"]),
            dataset_name=published_name(found["data"]),
            dataset_split=found["split"],
            metric_type="accuracy",
            metric_value=round(found["student_accuracy"], 6),
        )
        for found in measured
    ]
    name = f"{stated['student']}-student".replace(":", "-")
    data = ModelCardData(
        model_name=name,
        library_name="pytorch",
        pipeline_tag="image-classification",
        tags=["dpsd", "differential-privacy", "knowledge-distillation"],
        eval_results=results or None,
    )
    metrics, names = run.metrics(), certificate.class_names or ()
    channels, height, width = stated["input_shape"]
    card = ModelCard.from_template(
        data,
        template_str=files("dpsd.reporting")
        .joinpath("model-card.md.j2")
        .read_text(encoding="utf-8"),
        name=_plain(name),
        shape=(channels, height, width),
        num_classes=stated["num_classes"],
        names=[_plain(word) for word in names[:_NAMES_SHOWN]],
        more_names=max(0, len(names) - _NAMES_SHOWN),
        student=_plain(stated["student"]),
        certificate=certificate,
        certificate_sha256=stated["certificate_sha256"],
        not_private=NOT_PRIVATE,
        trust=TRUST,
        privacy=_privacy(certificate),
        queries=sum(line["queries"] for line in metrics),
        rounds=len(metrics),
        sources=[_plain(source.partition(":")[0]) for source in certificate.sources],
        measured=[_measured(found) for found in measured],
        recipe=run.recipe,
        probe=final_probe(run),
    )
    return f"{str(card).rstrip()}\n"


def _privacy(certificate: Certificate) -> list[dict[str, str]]:
    return [
        {
            "adjacency": adjacency.value,
            "meaning": meaning,
            "events": f"{certificate.events[adjacency.value]:,}",
            "epsilon": format_epsilon(certificate.spent.under(adjacency)),
        }
        for adjacency, meaning in certificate.meanings.items()
    ]


def _measured(found: Mapping[str, Any]) -> dict[str, str]:
    return {
        "data": _plain(published_name(found["data"])),
        "split": _plain(found["split"]),
        "images": f"{found['images']:,}",
        "accuracy": f"{found['student_accuracy']:.2%}",
    }


def _plain(words: str) -> str:
    r"""Return words that Markdown and HTML show as they are.

    >>> _plain("cat|<b>")
    'cat\\|&lt;b&gt;'
    """
    return _MARKUP.sub(r"\\\1", html.escape(words, quote=False))
