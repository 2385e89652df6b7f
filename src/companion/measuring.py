"""What chapters call: `measured` for the two numbers of a claim, `glue` for every other number of the prose.

Both leave their values in the outputs of the notebook, where the page, the ledger and the tests read them. The module
needs IPython alone: a chapter opens wherever a notebook does.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from IPython.display import display

from companion.certificates import Certificates, accepted
from companion.claims import Claim, Measurement, as_number, format_number

MEASURED_MIME = "application/vnd.companion.measured+json"
CERTIFICATES_MIME = "application/vnd.companion.certificates+json"  # beside a measurement, in the same output
GLUE_PREFIX = "application/papermill.record/"


def measured(claim: str, value: Any, *, control: Any, certificates: Sequence[str] = ()) -> None:
    """Leave the measured value of a declared claim, and its control's, in the notebook.

    A failed verdict is shown, not raised: a reader who changes a parameter must see what fails. Both numbers are glued,
    under the claim's id and ``<id>-control``. A certificate that the checker refuses is an error, though: no page may
    offer it.

    Args:
        claim: the id under which the prose declares it.
        value: a number (scalars of numpy and torch are cast).
        control: the same quantity on the object of the control.
        certificates: texts that prove the statement point by point; the checker must accept all.

    Raises:
        ValueError: when value or control is not one number, or the checker refuses a certificate or is missing.
    """
    measurement = Measurement.of(claim, value, control)
    bundle: dict[str, Any] = {MEASURED_MIME: {"id": claim, "value": measurement.value, "control": measurement.control}}
    if certificates:
        carried = accepted(claim, certificates)
        measurement = replace(measurement, certificates=carried)
        bundle[CERTIFICATES_MIME] = {"count": carried.count, "packed": carried.packed}
    display({"text/plain": _judged(measurement), **bundle}, raw=True)
    glue(claim, value)
    glue(f"{claim}-control", control)


def glue(name: str, value: Any) -> None:
    """Make a number or a short text available to ``{glue:text}`` without showing it here.

    Args:
        name: without a colon, which separates the format: ``{glue:text}`name:.1e```.
        value: a number (scalars of numpy and torch are cast) or a text.

    Raises:
        ValueError: when the name has a colon or the value is neither a number nor a text.
    """
    if not name or ":" in name:
        raise ValueError(f"glue: {name!r} is no name for a value: it must not be empty or hold a colon")
    if not isinstance(value, str):
        value = as_number(f"glue: {name}", value)
    # myst_nb strips the prefix and reads the text back as a Python literal before it formats it.
    bundle = {f"{GLUE_PREFIX}text/plain": repr(value)}
    display(bundle, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": GLUE_PREFIX}})


def counted(count: int, total: int) -> str:
    """How many out of a total, for a sentence that reads well for none and for all of them.

    Raises:
        ValueError: when the count is not one from 0 to the total.

    Example:
        >>> [f"{counted(count, 32)} networks" for count in (0, 5, 32)]
        ['none of the 32 networks', '5 of the 32 networks', 'all 32 networks']
    """
    if not 0 <= count <= total:
        raise ValueError(f"count: {count} is not from 0 to the total, {total}")
    if 0 < count == total:
        return f"all {total}"
    return f"{count or 'none'} of the {total}"


def measurements_of(notebook: Mapping[str, Any]) -> list[Measurement]:
    """The measurements in the outputs of a notebook, in their order there.

    Raises:
        ValueError: when a record of one is not as :func:`measured` leaves it.
    """
    outputs = (output for cell in notebook["cells"] for output in cell.get("outputs", []))
    bundles = (output.get("data", {}) for output in outputs)
    return [
        _measurement(bundle[MEASURED_MIME], bundle.get(CERTIFICATES_MIME))
        for bundle in bundles
        if MEASURED_MIME in bundle
    ]


def _measurement(record: Any, carried: Any) -> Measurement:
    numbers = int | float | None
    match record:
        case {"id": str(), "value": value, "control": control} if len(record) == 3:
            if all(isinstance(one, numbers) and not isinstance(one, bool) for one in (value, control)):
                return Measurement(**record, certificates=_certificates(record["id"], carried))
    raise ValueError(f"a measurement is not as companion.measuring leaves it: {record!r}")


def _certificates(claim: str, carried: Any) -> Certificates | None:
    match carried:
        case None:
            return None
        case {"count": int(), "packed": str()} if len(carried) == 2:
            return Certificates(**carried)
    raise ValueError(f"claim {claim}: its certificates are not as companion.measuring leaves them")


def _judged(measurement: Measurement) -> str:
    """What a notebook that runs by hand shows: with bound and verdict where the declaration can be found."""
    # No number depends on the prose: what is read for it is no input of the chapter (companion.recorder).
    sys.audit("companion.prose", True)
    try:
        # Costs a tenth of a second and more on a slow disk: only when a claim is measured.
        from companion.declarations import declared_nearby

        declared = declared_nearby(measurement.id, Path.cwd())
    except (OSError, ValueError) as error:
        return f"{measurement.id}: its declaration cannot be used: {error}"
    finally:
        sys.audit("companion.prose", False)
    if declared is None:
        values = f"{format_number(measurement.value)}, control {format_number(measurement.control)}"
        return f"{measurement.id}: measured {values}; bound and verdict stand on the chapter's page of the book"
    claim = Claim("", declared, measurement)
    lines = [
        f"{declared.title} ({claim.id}): {claim.verdict}",
        f"measured {format_number(claim.measured)}, bound {claim.bound}, control {claim.control}",
    ]
    return "\n".join([*lines, f"seal: {claim.seal}"] if claim.seal else lines)
