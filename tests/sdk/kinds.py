"""A gateway with a provider of every kind at the sandbox: where each is reached, what its models do, and
the gateway's config. Used by run.py; kinds_suite.py and kinds_suite.mjs are the clients.
"""

import json
import pathlib
import re
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

KEY = 'key = "env:FIRSTBYTE_SDK_CLOUD"'
AWS = 'region = "here-1"\naccess_key = "env:FIRSTBYTE_SDK_CLOUD"\nsecret_key = "env:FIRSTBYTE_SDK_CLOUD"'
ACCOUNT = 'location = "here"\nservice_account = "file:{account}"'

# A name, the kind, the base URL's path, more lines of its section, what stands before a script in the
# model's name, and whether it "signs" its thoughts and checks what comes back.
PLACES = [
    ("openai", "openai", "/v1", KEY, "", ""),
    ("azure", "azure", "/openai/v1", KEY, "", ""),
    ("azure-dated", "azure", "", KEY + '\napi_version = "2024-10-21"', "", ""),
    ("anthropic", "anthropic", "/v1", KEY, "", "signs"),
    ("gemini", "gemini", "/v1beta", KEY, "", "signs"),
    ("vertex", "vertex", "/v1", ACCOUNT, "", "signs"),
    ("vertex-claude", "vertex", "/v1", ACCOUNT, "claude-x~", "signs"),
    ("cohere", "cohere", "/v2", KEY, "", ""),
    ("ollama", "ollama", "/api", "", "", ""),
    ("mistral", "mistral", "/mistral/v1", KEY, "", ""),
    ("responses", "openai-responses", "/v1", KEY, "", "signs"),
    ("bedrock", "bedrock", "", AWS, "", ""),
    ("bedrock-claude", "bedrock", "", AWS, "anthropic.claude-x~", "signs"),
    ("invoke", "bedrock-invoke", "", KEY, "claude-x~", "signs"),
]
# Kinds whose vendors take no tools.
NO_TOOLS = {"perplexity"}

# What each place's models do: the script, more of the target, and whether another place stands behind it.
SILENT = {"head_timeout": "700ms", "first_content_timeout": "700ms", "answer_timeout": "700ms"}
MODELS = {
    "words": ("tokens=4", {}, False),
    "think": ("tokens=4,reasoning=2", {}, False),
    "tool": ("tools=1,reasoning=2", {}, False),
    "two": ("tools=2", {}, False),
    "long": ("tokens=2,finish=length", {}, False),
    "json": ("json", {}, False),
    "fall-503": ("503", {}, True),
    "fall-event": ("error_at=2", {}, True),
    "fall-hang": ("hang", SILENT, True),
    "fall-key": ("bad_key", {}, True),
    "cut": ("tokens=6,cut_event=4", {}, True),
    "cut-error": ("tokens=6,error_at=4", {}, True),
    "cut-frame": ("tokens=6,malformed_at=4", {}, True),
    "cut-hang": ("tokens=6,hang,event=4", {"idle_timeout": "700ms"}, True),
    "cut-end": ("tokens=6,no_finish", {}, True),
    "fault": ("400", {}, True),
    "too-long": ("context_length", {}, False),
}


def script(place, text):
    """A script as a model's name at `place`, such that it may stand in a path."""
    return place[4] + text.replace(",", "~").replace("=", "@")


def places(binary, folder):
    """Every place of this build, by the kinds that it says it speaks."""
    path = folder / "kinds.toml"
    path.write_text('[providers.x]\nkind = "none"\n')
    done = subprocess.run([binary, "check", "-c", str(path)], capture_output=True, text=True)
    kinds = re.search(r"this build speaks: ([^)]*)\)", done.stdout + done.stderr).group(1).split(", ")
    known = {place[1] for place in PLACES}
    if known - {*kinds}:
        raise SystemExit(f"kinds.py knows kinds that this build does not: {known - {*kinds}}")
    return PLACES + [(kind, kind, "/v1", KEY, "", "copy") for kind in kinds if kind not in known]


def account(folder, origin):
    """The key file of a service account that opens nothing, whose tokens are the sandbox's."""
    path = folder / "account.json"
    key = (REPOSITORY / "tests" / "keys" / "service-account.pem").read_text()
    file = {
        "type": "service_account",
        "project_id": "proj",
        "private_key_id": "k1",
        "private_key": key,
        "client_email": "robot@proj",
        "token_uri": f"{origin}/token",
    }
    path.write_text(json.dumps(file))
    return path


def told(all_places):
    """What the suites must know of each place."""
    return [
        {
            "name": place[0],
            "second": all_places[(at + 1) % len(PLACES)][0] if at < len(PLACES) else "anthropic",
            "tools": place[0] not in NO_TOOLS,
            "signs": "signs" in place[5],
            "copy": "copy" in place[5],
        }
        for at, place in enumerate(all_places)
    ]


def sections(all_places, origins, folder):
    """The config's providers, `a-` and `b-` for each place, and their models."""
    keys = account(folder, origins[0])
    rows = []
    for role, origin in zip("ab", origins):
        for name, kind, path, more, _, _ in all_places:
            rows += [f"[providers.{role}-{name}]", f'kind = "{kind}"', f'base_url = "{origin}{path}"']
            rows.append(more.format(account=keys))
    by_name = {place[0]: place for place in all_places}
    for place, what in zip(all_places, told(all_places)):
        behind = by_name[what["second"]]
        for model, (text, more, falls) in MODELS.items():
            first = {"target": f"a-{place[0]}/{script(place, text)}", **more}
            targets = [first, f"b-{behind[0]}/{script(behind, 'tokens=4')}"][: 1 + falls]
            rows += [f'[models."{place[0]}.{model}"]', f"targets = {inline(targets)}"]
    return rows


def inline(targets):
    def one(target):
        if isinstance(target, str):
            return json.dumps(target)
        return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in target.items()) + " }"

    return "[" + ", ".join(map(one, targets)) + "]"
