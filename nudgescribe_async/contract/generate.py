"""From ``openapi.yaml`` to Python: models, one module of coroutines per resource, and a page of the docs.

The generator reads the contract into a few plain values (``read``), writes text from them (``models``,
``resource``, ``page``), and lets ``ruff`` lay the Python out. Nothing here is imported at run time.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml
from attrs import define

from nudgescribe_async.contract.check import ContractError, problems

HERE = Path("nudgescribe_async/contract")
WIDTH = 100
COMMAND = "nox -s generate"


@define
class Property:
    """One property of an object, or one argument of an operation."""

    name: str
    schema: dict[str, Any]
    required: bool
    evidence: str
    description: str

    @property
    def secret(self) -> bool:
        return bool(self.schema.get("x-secret"))

    @property
    def personal(self) -> bool:
        return bool(self.schema.get("x-personal"))

    @property
    def first_page(self) -> int | None:
        """The number of the first page, if this is the number of a page."""
        first: dict[str, int] | None = self.schema.get("x-first-page")
        return None if first is None else first["value"]

    @property
    def counting(self) -> str:
        """From where pages count, and how well that is known; empty if this is not the number of a page."""
        if self.first_page is None:
            return ""
        return f"{self.first_page} ({self.schema['x-first-page']['x-evidence']})"


@define
class Operation:
    """One operation, as the templates need it."""

    name: str
    method: str
    path: str
    node: dict[str, Any]
    body: list[Property]
    headers: list[Property]
    alternatives: list[str]

    @property
    def resource(self) -> str:
        return self.name.partition(".")[0]

    @property
    def function(self) -> str:
        return self.name.partition(".")[2]

    @property
    def constant(self) -> str:
        return self.function.upper()


@define
class Contract:
    """The contract, with references resolved by name."""

    document: dict[str, Any]
    operations: list[Operation]

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        return dict(self.document["components"]["schemas"])

    @property
    def model_names(self) -> set[str]:
        """The classes of ``endpoints/models.py``, and at most a few names more."""
        return {
            name
            for name, schema in self.schemas.items()
            if not name.endswith(("Body", "Form")) and (schema.get("type") == "object" or "x-names" in schema)
        }

    def schema(self, node: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """The name (if it is a reference) and the text of a schema."""
        if "$ref" in node:
            name = str(node["$ref"]).rpartition("/")[2]
            return name, self.schemas[name]
        return None, node


def read(text: str) -> Contract:
    """The contract from the text of ``openapi.yaml``.

    Raises:
        ContractError: it cannot be used; the text says where, and what would be right.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ContractError(f"openapi.yaml is no YAML: {error}") from None
    if found := sorted(problems(document)):
        raise ContractError("\n".join(found))
    contract = Contract(document, [])
    for path, methods in document["paths"].items():
        for method, node in methods.items():
            contract.operations.append(_operation(contract, path, method.upper(), node))
    return contract


def _properties(schema: dict[str, Any]) -> list[Property]:
    required = set(schema.get("required", ()))
    return [
        Property(name, node, name in required, node["x-evidence"], node.get("description", ""))
        for name, node in schema.get("properties", {}).items()
    ]


def _operation(contract: Contract, path: str, method: str, node: dict[str, Any]) -> Operation:
    body: dict[str, Property] = {}
    contents = [
        contract.schema(content["schema"])[1] for content in node.get("requestBody", {}).get("content", {}).values()
    ]
    for schema in contents:
        for item in _properties(schema):
            body.setdefault(item.name, item)
    # What only some of several kinds of body have is a choice that the caller makes.
    alternatives = [name for name in body if any(name not in schema["properties"] for schema in contents)]
    for name in alternatives:
        body[name].required = False
    headers = [
        Property(parameter["name"], parameter["schema"], True, parameter["x-evidence"], parameter["description"])
        for parameter in node.get("parameters", ())
        if "$ref" not in parameter
    ]
    return Operation(node["operationId"], method, path, node, list(body.values()), headers, alternatives)


# --- types -----------------------------------------------------------------------------------------


def _non_null(node: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A schema without its ``null``, and whether it had one."""
    if "anyOf" in node:
        rest = [item for item in node["anyOf"] if item.get("type") != "null"]
        return rest[0], len(rest) < len(node["anyOf"])
    if isinstance(node.get("type"), list):
        kinds = [kind for kind in node["type"] if kind != "null"]
        return {**node, "type": kinds[0]}, len(kinds) < len(node["type"])
    return node, False


def answer_type(contract: Contract, node: dict[str, Any]) -> str:
    """The Python type of a value in an answer."""
    node, _ = _non_null(node)
    name, schema = contract.schema(node)
    if name is not None:
        if "x-names" in schema:
            return f"{name} | str"
        if "x-unwrap" in schema:
            return "int"
        return name if schema["type"] == "object" else answer_type(contract, schema)
    if schema.get("x-format") == "timestamp":
        return "datetime"
    match schema["type"]:
        case "array":
            return f"list[{answer_type(contract, schema['items'])}]"
        case "object":
            return "dict[str, JSON]"
        case kind:
            return {"string": "str", "integer": "int", "boolean": "bool", "number": "float"}[kind]


def _kind(contract: Contract, node: dict[str, Any]) -> tuple[str, str]:
    """The ``Kind`` of an argument, and its Python type."""
    name, schema = contract.schema(node)
    if name is not None and "x-names" in schema:
        return "TEXT", f"{name} | str"
    if schema.get("x-format") == "timestamp":
        return "TIMESTAMP", "datetime"
    if "contentMediaType" in schema:
        return "FILE", "FileSource"
    if "enum" in schema:
        return "TEXT", "Literal[" + ", ".join(f'"{choice}"' for choice in schema["enum"]) + "]"
    if schema["type"] == "array":
        item_name, item = contract.schema(schema["items"])
        if item["type"] == "string":
            return "TEXTS", "Sequence[str]"
        return "OBJECTS", f"Sequence[{item_name or 'Mapping[str, JSON]'}]"
    return {"string": ("TEXT", "str"), "integer": ("INTEGER", "int"), "boolean": ("BOOLEAN", "bool")}[schema["type"]]


# --- text ------------------------------------------------------------------------------------------


def _doc(text: str, indent: str, *, first: str = "") -> str:
    """A docstring's paragraph, wrapped; backticks doubled, as reStructuredText and mkdocstrings read them."""
    return textwrap.fill(
        " ".join(text.replace("`", "``").split()), WIDTH, initial_indent=indent + first, subsequent_indent=indent
    )


def _entry(name: str, text: str, indent: str) -> str:
    return textwrap.fill(
        f"{name}: " + " ".join(text.replace("`", "``").split()),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "    ",
    )


def _header(summary: str) -> str:
    return f'"""{summary}\n\nGenerated from ``contract/openapi.yaml`` by ``{COMMAND}``: do not edit.\n"""\n\nfrom __future__ import annotations\n\n'


def _constant_name(value: str) -> str:
    return value.upper().replace(" ", "_")


# --- models ----------------------------------------------------------------------------------------


def models(contract: Contract) -> str:
    """The text of ``endpoints/models.py``."""
    answers = [
        (name, schema)
        for name, schema in contract.schemas.items()
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False and name != "Error"
    ]
    changes = [
        (name, schema)
        for name, schema in contract.schemas.items()
        if schema.get("additionalProperties") is False and not name.endswith(("Body", "Form"))
    ]
    enums = [(name, schema) for name, schema in contract.schemas.items() if "x-names" in schema]
    exported = sorted([name for name, _ in answers + changes + enums])
    parts = [
        _header("What the service answers, as typed values."),
        "from datetime import datetime\nfrom enum import StrEnum\nfrom typing import TypedDict\n\nimport attrs\n",
        "from nudgescribe_async.profiles import HasProfile\n",
        "from nudgescribe_async.shapes import ASSUMED, JSON, OBSERVED, REFERENCE, SEED, NotPickled, hidden, names_only, no_extra\n",
        f"__all__ = {exported!r}\n",
    ]
    parts += [_enum(name, schema) for name, schema in enums]
    parts += [_model(contract, name, schema) for name, schema in _in_order(contract, answers)]
    parts += [_typed_dict(name, schema) for name, schema in changes]
    return "\n\n".join(parts)


def _in_order(contract: Contract, models: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Models before those that mention them, so that annotations read from top to bottom."""
    ordered: dict[str, dict[str, Any]] = {}
    by_name = dict(models)

    def place(name: str) -> None:
        if name in ordered or name not in by_name:
            return
        for item in _properties(by_name[name]):
            for other in by_name:
                if other in answer_type(contract, item.schema).replace("[", " ").replace("]", " ").split():
                    place(other)
        ordered[name] = by_name[name]

    for name in by_name:
        place(name)
    return list(ordered.items())


def _enum(name: str, schema: dict[str, Any]) -> str:
    lines = [f"class {name}(StrEnum):", _doc(schema["description"], "    ", first='"""') + '\n    """', ""]
    lines += [f'    {_constant_name(value)} = "{value}"' for value in schema["x-names"]]
    return "\n".join(lines)


def _model(contract: Contract, name: str, schema: dict[str, Any]) -> str:
    properties = _properties(schema)
    properties = [item for item in properties if item.required] + [item for item in properties if not item.required]
    secret = any(item.secret for item in properties)
    paragraphs = schema["description"].strip().split("\n\n")
    bases = ", ".join([*(["NotPickled"] if secret else []), *(["HasProfile"] if schema.get("x-profile") else [])])
    lines = ["@attrs.define(kw_only=True)", f"class {name}{f'({bases})' if bases else ''}:"]
    lines.append(
        "\n\n".join(_doc(text, "    ", first='"""' if index == 0 else "") for index, text in enumerate(paragraphs))
    )
    if secret:
        lines += ["", "    It holds a secret: ``repr()`` hides it, and it cannot be pickled."]
    lines += ["", "    Attributes:"]
    lines += [_entry(item.name, f"{item.description.rstrip('.')} ({item.evidence}).", " " * 8) for item in properties]
    lines += [_entry("extra", "What the answer holds beyond the contract, as it came.", " " * 8), '    """', ""]
    for item in properties:
        kind = answer_type(contract, item.schema)
        options = [] if item.required else ["default=None"]
        if item.secret:
            options.append("repr=hidden")
        elif item.personal:
            options.append("repr=names_only" if kind.startswith("dict") else "repr=hidden")
        options.append(f"metadata={item.evidence.upper()}")
        lines.append(
            f"    {item.name}: {kind if item.required else kind + ' | None'} = attrs.field({', '.join(options)})"
        )
    lines.append("    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)")
    return "\n".join(lines)


def _typed_dict(name: str, schema: dict[str, Any]) -> str:
    properties = _properties(schema)
    lines = [f"class {name}(TypedDict):", _doc(schema["description"], "    ", first='"""'), "", "    Attributes:"]
    lines += [_entry(item.name, f"{item.description.rstrip('.')} ({item.evidence}).", " " * 8) for item in properties]
    lines += ['    """', ""]
    lines += [
        f"    {item.name}: {'dict[str, JSON]' if item.schema['type'] == 'object' else 'str'}" for item in properties
    ]
    return "\n".join(lines)


# --- endpoints -------------------------------------------------------------------------------------


def resource(contract: Contract, tag: dict[str, Any]) -> str:
    """The text of one module of ``endpoints/``."""
    operations = [operation for operation in contract.operations if operation.resource == tag["name"]]
    name = "".join(word.capitalize() for word in tag["name"].split("_"))
    shadowed = {operation.function for operation in operations} & {"list"}
    body = "\n\n".join(_endpoint(contract, operation) for operation in operations)
    coroutines = "\n\n".join(_coroutine(contract, operation, shadowed) for operation in operations)
    text = (
        f'{body}\n\n\nclass {name}Endpoints:\n    """{tag["description"]}\n\n'
        "    Any number of calls may run at once; the client's limit decides how many are in flight. A call that is\n"
        "    cancelled gives its connection up at once, and a writing one may have taken effect by then.\n"
        f'    """\n\n    __slots__ = ("_session",)\n\n    def __init__(self, session: Session) -> None:\n        self._session = session\n\n{coroutines}\n'
    )
    return (
        _header(
            f"{tag['name'].replace('_', ' ').capitalize()}: {tag['description'][0].lower()}{tag['description'][1:]}"
        )
        + _imports(contract, text)
        + text
    )


def _imports(contract: Contract, text: str) -> str:
    """The imports that a text may need, by the words in it; ``ruff`` takes out what it does not."""
    words = set(re.findall(r"\w+", text))
    runtime = [
        f"from {module} import {', '.join(sorted(found))}"
        for module, names in {
            "nudgescribe_async.endpoint": {"Argument", "Bearer", "Effect", "Endpoint", "Kind", "RetryClass"},
            "nudgescribe_async.shapes": {"JSON", "Evidence"},
        }.items()
        if (found := names & words)
    ]
    if models := sorted(contract.model_names & words):
        runtime.append(f"from nudgescribe_async.endpoints.models import {', '.join(models)}")
    typing = sorted({"Final", "Literal", "overload"} & words)
    checking = [
        "    from nudgescribe_async.options import CallOptions",
        "    from nudgescribe_async.session import Session",
    ]
    if abstract := sorted({"Mapping", "Sequence"} & words):
        checking.append(f"    from collections.abc import {', '.join(abstract)}")
    if "datetime" in words:
        checking.append("    from datetime import datetime")
    if "FileSource" in words:
        checking.append("    from nudgescribe_async.transport.multipart import FileSource")
    builtins = "import builtins\n" if "builtins" in words else ""
    return (
        f"{builtins}from typing import {', '.join(['TYPE_CHECKING', *typing])}\n"
        + "\n".join(runtime)
        + "\n\nif TYPE_CHECKING:\n"
        + "\n".join(checking)
        + "\n\n"
    )


def _arguments(contract: Contract, operation: Operation) -> str:
    rendered = [
        f'Argument("{item.name.removeprefix("x-").replace("-", "_")}", Kind.TEXT, header="{item.name}")'
        for item in operation.headers
    ]
    for item in operation.body:
        kind, _ = _kind(contract, item.schema)
        options = [f'"{item.name}"', f"Kind.{kind}"]
        # Without a page, the first one is sent, and which one that is depends on the client.
        if (
            ("default" in item.schema)
            if item.first_page is not None
            else not (item.required or "default" in item.schema)
        ):
            options.append("required=False")
        if item.first_page is not None:
            options.append(f"first_page={item.first_page}")
        elif "minimum" in item.schema:
            options.append(f"minimum={item.schema['minimum']}")
        if "enum" in item.schema:
            options.append(f"choices={tuple(item.schema['enum'])!r}")
        if kind == "OBJECTS" and "$ref" in item.schema["items"]:
            _, schema = contract.schema(item.schema["items"])
            options.append(f"keys={tuple(schema['required'])!r}")
        rendered.append(f"Argument({', '.join(options)})")
    return "".join(f"{item}, " for item in rendered)


def _answers(contract: Contract, operation: Operation) -> dict[str | None, str]:
    """The types of the answer, by the argument that decides (``None`` where nothing does)."""
    chosen = operation.node.get("x-answer-by")
    if chosen is None:
        content = operation.node["responses"]["200"]["content"]["application/json"]
        return {None: answer_type(contract, content["schema"])}
    return {
        choice: "str" if "mediaType" in how else answer_type(contract, {"$ref": how["schema"]})
        for choice, how in chosen.items()
        if choice != "property"
    }


def _endpoint(contract: Contract, operation: Operation) -> str:
    node = operation.node
    common = [
        f'operation="{operation.name}"',
        f'method="{operation.method}"',
        f'path="{operation.path}"',
        f"effect=Effect.{node['x-effect'].upper()}",
        f"retry=RetryClass.{node['x-retry'].upper()}",
        f"evidence=Evidence.{node['x-evidence'].upper()}",
    ]
    if arguments := _arguments(contract, operation):
        common.append(f"arguments=({arguments})")
    security = node.get("security")
    if security is not None:
        common.append(f"bearer=Bearer.{'REFRESH' if security else 'NONE'}")
    if "x-context-headers" in node:
        common.append("context_headers=True")
    if node.get("x-partial"):
        common.append("partial=True")
    if operation.alternatives:
        common.append(f"exactly_one={tuple(operation.alternatives)!r}")
    if "x-look" in node:
        common.append(f'look="{node["x-look"]}"')
    if None in _answers(contract, operation):
        _, schema = contract.schema(node["responses"]["200"]["content"]["application/json"]["schema"])
        if "x-unwrap" in schema:
            common.append(f"unwrap={tuple(schema['x-unwrap'])!r}")
    return "\n".join(
        f"{operation.constant}{'' if choice is None else '_' + choice.upper()}: Final = Endpoint({', '.join([*common, f'answer={kind}'])},)"
        for choice, kind in _answers(contract, operation).items()
    )


def _signature(contract: Contract, operation: Operation, choice: str | None, *, required: bool = False) -> str:
    parts = ["self"]
    parts += [f"{item.name.removeprefix('x-').replace('-', '_')}: str" for item in operation.headers]
    if operation.node.get("security"):
        parts.append("refresh_token: str")
    keyword_only = False
    decides = operation.node.get("x-answer-by", {}).get("property")
    for item in operation.body:
        if item.name in operation.alternatives and not keyword_only:
            parts.append("*")
            keyword_only = True
        _, kind = _kind(contract, item.schema)
        default = item.schema.get("default") if item.first_page is None else None
        if item.name == decides and choice is not None:
            parts.append(f'{item.name}: Literal["{choice}"]' + ("" if required else f' = "{choice}"'))
        elif default is not None:
            parts.append(f"{item.name}: {kind} = {default!r}")
        elif item.required and "default" not in item.schema:
            parts.append(f"{item.name}: {kind}")
        else:
            parts.append(f"{item.name}: {kind} | None = None")
    if not keyword_only:
        parts.append("*")
    parts.append("options: CallOptions | None = None")
    return ", ".join(parts)


def _returns(kind: str, shadowed: set[str]) -> str:
    return f"builtins.{kind}" if kind.startswith("list[") and shadowed else kind


def _coroutine(contract: Contract, operation: Operation, shadowed: set[str]) -> str:
    answers = _answers(contract, operation)
    decides = operation.node.get("x-answer-by", {}).get("property")
    values = [
        f'"{name}": {name}'
        for name in (item.name.removeprefix("x-").replace("-", "_") for item in operation.headers + operation.body)
    ]
    bearer = ", bearer=refresh_token" if operation.node.get("security") else ""
    lines: list[str] = []
    default = next((item.schema.get("default") for item in operation.body if item.name == decides), None)
    for choice, kind in answers.items():
        if choice is not None:
            signature = _signature(contract, operation, choice, required=choice != default)
            # A choice that is not the default has to be named, or an argument without a default would follow one.
            lines += [
                "    @overload",
                f"    async def {operation.function}({signature}) -> {_returns(kind, shadowed)}: ...",
            ]
    union = " | ".join(_returns(kind, shadowed) for kind in answers.values())
    lines.append(f"    async def {operation.function}({_signature(contract, operation, None)}) -> {union}:")
    lines.append(_operation_doc(contract, operation, union))
    body = f"{{{', '.join(values)}}}"
    if None in answers:
        lines.append(f"        return await self._session.call({operation.constant}, {body}, options{bearer})")
    else:
        for choice in filter(None, answers):
            call = f"return await self._session.call({operation.constant}_{choice.upper()}, {body}, options)"
            lines.append(
                f"        {call}"
                if choice == list(answers)[-1]
                else f'        if {decides} == "{choice}":\n            {call}'
            )
    return "\n".join(lines)


def _operation_doc(contract: Contract, operation: Operation, union: str) -> str:
    node = operation.node
    indent = " " * 8
    lines = [_doc(node["summary"] + ".", indent, first='"""')]
    if "description" in node:
        lines += ["", _doc(node["description"], indent)]
    lines += [
        "",
        _doc(f"`{operation.method} {operation.path}` ({node['x-evidence']}). {_repeating(node)}", indent),
        "",
        f"{indent}Args:",
    ]
    lines += [
        _entry(
            item.name.removeprefix("x-").replace("-", "_"),
            f"{item.description.rstrip('.')} ({item.evidence}).",
            indent + "    ",
        )
        for item in operation.headers
    ]
    if node.get("security"):
        lines.append(_entry("refresh_token", "The refresh token (reference).", indent + "    "))
    for item in operation.body:
        given = (
            f" Give either this or `{' or '.join(set(operation.alternatives) - {item.name})}`."
            if item.name in operation.alternatives
            else ""
        )
        pages = (
            f" Pages count from {item.counting}, unless `first_page` of the client says otherwise."
            if item.counting
            else ""
        )
        lines.append(
            _entry(item.name, f"{item.description.rstrip('.')} ({item.evidence}).{pages}{given}", indent + "    ")
        )
    lines.append(_entry("options", "Timeout, retries and headers of this call alone.", indent + "    "))
    lines += ["", f"{indent}Returns:", _entry_text(_describe(union), indent + "    ")]
    lines += ["", f"{indent}Raises:"]
    lines += [_entry(name, text, indent + "    ") for name, text in _raises(operation)]
    return "\n".join(lines) + f'\n{indent}"""'


def _entry_text(text: str, indent: str) -> str:
    return textwrap.fill(
        " ".join(text.replace("`", "``").split()), WIDTH, initial_indent=indent, subsequent_indent=indent
    )


def _describe(union: str) -> str:
    union = union.replace("builtins.", "")
    if union.startswith("list["):
        return f"A list of `{union[5:-1]}`, in the order of the service."
    if " | " in union:
        return "The text of the file, its rows, or a link to it, as `format` says."
    return {"int": "How many."}.get(union, f"`{union}`.")


def _repeating(node: dict[str, Any]) -> str:
    if node["x-retry"] == "safe" and node["x-effect"] != "read":
        return "Doing it twice does no harm, so it is tried again after a passing failure."
    return REPEATING[node["x-retry"]]


REPEATING = {
    "safe": "Changes nothing, and is tried again after a passing failure.",
    "idempotent": "Twice is the same as once, so it is tried again after a passing failure.",
    "unsafe": "Sent again only if the first time provably had no effect.",
}
ERRORS = {
    "400": ("BadRequestError", "an argument is wrong, or a prerequisite is not met"),
    "401": ("MissingFieldsError", "a field is missing, or the workspace is not known"),
    "402": ("QuotaExceededError", "the quota of the account is used up"),
    "403": ("PermissionDeniedError", "these credentials may not do this"),
    "413": ("PayloadTooLargeError", "send less at once"),
    "429": ("RateLimitedError", "too many requests, and the retries are used up"),
    "500": ("ServerError", "the service failed, and went on failing"),
}


def _raises(operation: Operation) -> list[tuple[str, str]]:
    raised = [ERRORS[status] for status in sorted(operation.node["responses"]) if status != "200"]
    raised = [(name, f"{text}.") for name, text in raised]
    unsafe = operation.node["x-retry"] == "unsafe"
    unknown = "OutcomeUnknownError" if unsafe else "TransportError"
    text = (
        f"it may have taken effect; look with `{operation.node['x-look']}`."
        if unsafe
        else "no usable answer came, and the retries are used up."
    )
    return [
        *raised,
        (unknown, text),
        ("DeadlineExceededError", "the time given to the call ran out."),
        ("ResponseDecodeError", "the answer does not fit the contract."),
        ("NudgescribeError", "see `nudgescribe_async.errors` for the rest of the tree."),
    ]


# --- the page of the docs --------------------------------------------------------------------------


def page(contract: Contract) -> str:
    """The text of ``docs/operations.md``."""
    lines = [
        "# Operations and their evidence",
        "",
        f"<!-- Generated from nudgescribe_async/contract/openapi.yaml by `{COMMAND}`: do not edit. -->",
        "",
        (
            "Every fact carries how well it is known: **seed** (stated by an operation page of the reference, example "
            f"included), **reference** (stated elsewhere in it), {_observed(contract)}**assumed** (named by analogy, "
            f"unverified). To correct one, edit the contract and run `{COMMAND}`."
        ),
        "",
        _counting(contract),
        "",
        "| operation | method and path | effect | may be sent again | evidence |",
        "|---|---|---|---|---|",
    ]
    for operation in contract.operations:
        node = operation.node
        anchor = operation.name.replace(".", "")
        lines.append(
            f"| [`{operation.name}`](#{anchor}) | `{operation.method} {operation.path}` | {node['x-effect']} | {node['x-retry']} | {node['x-evidence']} |"
        )
    for operation in contract.operations:
        lines += _page_of(contract, operation)
    lines += ["", "## Types", ""]
    for name, schema in contract.schemas.items():
        if name != "Error" and schema.get("type") == "object" and not name.endswith(("Body", "Form")):
            lines += [
                f"### {name}",
                "",
                " ".join(schema["description"].split()),
                "",
                *_table(contract, _properties(schema)),
            ]
        elif "x-names" in schema:
            known = ", ".join(f"`{value}`" for value in schema["x-names"])
            lines += [
                f"### {name}",
                "",
                " ".join(schema["description"].split()),
                "",
                f"Known ({schema['x-evidence']}): {known}.",
                "",
            ]
    return "\n".join(lines).rstrip() + "\n"


def _observed(contract: Contract) -> str:
    """What the word means, once the contract uses it."""
    if "observed" not in _evidence(contract.document):
        return ""
    return "**observed** (named by analogy, and seen in answers of the service), "


def _evidence(node: object) -> Iterator[str]:
    """All words of evidence below a node."""
    if isinstance(node, dict):
        for key, value in cast("dict[str, object]", node).items():
            if key == "x-evidence":
                yield str(value)
            yield from _evidence(value)
    elif isinstance(node, list):
        for value in cast("list[object]", node):
            yield from _evidence(value)


def _counting(contract: Contract) -> str:
    """From where the pages of each operation count."""
    by_counting: dict[str, list[str]] = {}
    for operation in contract.operations:
        for item in operation.body:
            if item.counting:
                by_counting.setdefault(item.counting, []).append(f"`{operation.name}`")
    parts = [f"from {counting} in {' and '.join(names)}" for counting, names in by_counting.items()]
    return f"Pages count {', '.join(parts)}; `Nudgescribe(first_page=...)` overrides it."


def _page_of(contract: Contract, operation: Operation) -> list[str]:
    node = operation.node
    lines = [
        "",
        f"## {operation.name}",
        "",
        f"`{operation.method} {operation.path}`: {node['summary'][0].lower()}{node['summary'][1:]}. Evidence of method and path: **{node['x-evidence']}**.",
    ]
    if node.get("deprecated"):
        lines += ["", "Deprecated by the service."]
    if "description" in node:
        lines += ["", " ".join(node["description"].split())]
    lines += ["", f"Effect: {node['x-effect']}. {_repeating(node)}", ""]
    arguments = operation.headers + operation.body
    lines += _table(contract, arguments) if arguments else ["No arguments.", ""]
    answers = " or ".join(f"`{kind}`" for kind in _answers(contract, operation).values())
    statuses = ", ".join(sorted(operation.node["responses"]))
    return [*lines, f"Answers {answers}. Statuses in the contract: {statuses}."]


def _table(contract: Contract, properties: list[Property]) -> list[str]:
    lines = ["| name | type | needed | evidence | meaning |", "|---|---|---|---|---|"]
    for item in properties:
        kind = (
            _kind(contract, item.schema)[1]
            if "enum" in item.schema or "contentMediaType" in item.schema
            else answer_type(contract, item.schema)
        )
        cells = [
            f"`{item.name}`",
            f"`{kind}`".replace("|", "\\|"),
            "yes" if item.required else "no",
            item.evidence,
            item.description,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


# --- all of it -------------------------------------------------------------------------------------


def formatted(text: str, path: Path, root: Path) -> str:
    """The text as ``ruff`` lays it out, imports sorted."""
    for arguments in (["check", "--fix-only", "--quiet", "--select", "F401,I,UP,RUF022"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(path), "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=root)  # noqa: S603 - our own command
        text = done.stdout
    return text


def generate(root: Path) -> dict[Path, str]:
    """All generated files by their path, as they ought to be."""
    contract = read((root / HERE / "openapi.yaml").read_text(encoding="utf-8"))
    package = root / "nudgescribe_async" / "endpoints"
    files = {package / "models.py": models(contract)}
    files |= {package / f"{tag['name']}.py": resource(contract, tag) for tag in contract.document["tags"]}
    files[package / "__init__.py"] = (
        f'"""The operations of the contract, one module per resource.\n\nGenerated from ``contract/openapi.yaml`` by ``{COMMAND}``: do not edit.\n"""\n'
    )
    texts = {path: formatted(text, path, root) for path, text in files.items()}
    texts[root / HERE / "openapi.json"] = json.dumps(contract.document, indent=1, ensure_ascii=False) + "\n"
    texts[root / "docs" / "operations.md"] = page(contract)
    return texts
