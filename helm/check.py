"""Checks the chart: check.py HELM…, each a helm binary. Exits with 1 when anything failed.

For every ci/ values file: lint, render, the API schemas of several Kubernetes versions, the house rules
(`rules.py`), and the settings files against the services' own Config structs. Then what must be refused: broken
values by the chart, broken manifests by the house rules, so that no check passes by being blind. At the end, that
the documentation names every value and setting.
"""

import copy
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml

import rules

HERE = Path(__file__).resolve().parent
CHART = HERE / "marquee"
KUBERNETES = ["1.30", "1.34", "1.37"]

# Kinds that no Kubernetes version brings, so that their schemas are not at hand: (apiVersion, kind).
WITHOUT_SCHEMA = {("monitoring.coreos.com/v1", "ServiceMonitor"), ("cert-manager.io/v1", "Certificate")}

# (values file, what to set, what the refusal must mention)
BROKEN_VALUES = [
    ("minimal", "role=both", "role"),
    ("minimal", "rolle=global", "rolle"),
    ("minimal", "region=EU", "region"),
    ("minimal", "region=us", "not among regions"),
    ("minimal", "gateway.replicas=two", "replicas"),
    ("minimal", "gateway.replica=2", "replica"),
    ("minimal", "payments.providerUrl=payments", "providerUrl"),
    ("minimal", "postgres.password=x", "password"),
    ("minimal", "podSecurityContext.runAsNonRoot=false", "runAsNonRoot"),
    ("minimal", "terminationGracePeriodSeconds=30", "terminationGracePeriodSeconds"),
    ("minimal", "regions[0].name=eu,regions[1].name=us", "gatewayUrl"),
    ("minimal", "raft.electionMinMs=3000", "electionMaxMs"),
    ("minimal", "raft.electionMaxMs=3001", "electionMaxMs"),
    ("minimal", "raft.heartbeatMs=800", "heartbeatMs"),
    ("minimal", "raft.regionTimeoutMs=0", "regionTimeoutMs"),
    ("minimal", "peerTls.issuer.kind=Anybody", "kind"),
    ("region-eu", "raft.nodeIdPrefix=4", "no voter with id 40"),
    ("region-eu", "raft.replicas=2", "no voter with id 11"),
    ("region-eu", "regions[1].name=eu", "given twice"),
    ("region-eu", "image.digest=latest", "digest"),
    ("global", "bootstrapAdmin.email=", "email"),
]

passed, failed = 0, 0


def check(what, problems):
    """Counts one check and prints its problems."""
    global passed, failed
    problems = list(problems)
    if problems:
        failed += 1
        print(f"FAILED {what}")
        for problem in problems:
            print(f"  {problem}")
    else:
        passed += 1


def helm(binary, *arguments):
    """(standard output, problems)"""
    run = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=60)
    return run.stdout, [] if run.returncode == 0 else [(run.stderr or run.stdout).strip()]


def render(binary, values, *more):
    return helm(binary, "template", "marquee-eu", str(CHART), "--namespace", "tickets", "--values", str(values), *more)


def schema_problems(manifests, version):
    for manifest in manifests:
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            if (manifest["apiVersion"], manifest["kind"]) not in WITHOUT_SCHEMA:
                yield f"{name}: no schema, and not listed in WITHOUT_SCHEMA"
        except kubernetes_validate.ValidationError as error:
            yield f"{name}: {'.'.join(map(str, error.path))}: {error.message}"


def config_fields(service):
    """The names of all public fields of the service's settings: wider than right, but it catches a wrong name."""
    sources = [p for p in (HERE.parent / service / "src").rglob("*.rs") if re.search(r"^pub struct \w*Config ", p.read_text(), re.M)]
    if sources:
        # What all services share.
        sources.append(HERE.parent / "common" / "src" / "tls" / "mod.rs")
    return {name for source in sources for name in re.findall(r"^\s*pub (\w+):", source.read_text(), re.M)}


def keys(table):
    for key, value in table.items():
        yield key
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from keys(inner)


def settings_problems(manifests):
    """The rendered settings files are TOML with names that the services know, and hold no secret."""
    for manifest in manifests:
        for name, text in manifest.get("data", {}).items() if manifest["kind"] == "ConfigMap" else ():
            service = name.removesuffix(".toml")
            known = config_fields(service)
            if not known:
                yield f"{service}: found no `pub struct Config` in its sources"
            for key in keys(tomllib.loads(text)):
                if key not in known:
                    yield f"{name}: {service} has no setting `{key}`"
                if key in ("postgres_url", "redis_url", "master_key", "api_key", "webhook_secret", "password"):
                    yield f"{name}: `{key}` is a secret"


def main(binaries):
    rendered = {}
    for values in sorted((CHART / "ci").glob("*-values.yaml")):
        outputs = []
        for binary in binaries:
            name = f"{values.name} with {Path(binary).name}"
            check(f"lint {name}", helm(binary, "lint", "--strict", str(CHART), "--values", str(values))[1])
            text, problems = render(binary, values)
            check(f"template {name}", problems)
            outputs.append([m for m in yaml.safe_load_all(text) if m])
        check(f"{values.name}: the helms render alike", [] if all(o == outputs[0] for o in outputs) else ["they differ"])
        check(f"{values.name}: renders something", [] if outputs[0] else ["nothing"])
        for version in KUBERNETES:
            check(f"{values.name} against Kubernetes {version}", schema_problems(outputs[0], version))
        for rule in rules.RULES:
            check(f"{values.name}: {rule.__doc__}", rule(outputs[0]))
        check(f"{values.name}: settings files", settings_problems(outputs[0]))
        rendered[values.name] = outputs[0]

    for name, change, mention in BROKEN_VALUES:
        for binary in binaries:
            _, problems = render(binary, CHART / "ci" / f"{name}-values.yaml", "--set", change)
            refusal = " ".join(problems)
            if not problems:
                problems = ["was accepted"]
            elif mention not in refusal:
                problems = [f"refused for another reason than `{mention}`: {refusal}"]
            else:
                problems = []
            check(f"{name}-values.yaml broken by {change}, {Path(binary).name}", problems)

    good = rendered["region-eu-values.yaml"]
    for rule, damage in rules.DAMAGES:
        manifests = copy.deepcopy(good)
        damage(manifests)
        check(f"`{rule.__name__}` notices {damage.__doc__}", [] if list(rule(manifests)) else ["it did not"])
    misfit = copy.deepcopy(next(m for m in good if m["kind"] == "Deployment"))
    misfit["spec"]["replica"] = 1
    check("a schema notices an unknown field", [] if list(schema_problems([misfit], KUBERNETES[0])) else ["it did not"])

    explained = (CHART / "README.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    check("README.md names every value", [f"not `{key}`" for key in values if f"`{key}`" not in explained])

    operations = (HERE.parent / "docs" / "operations.md").read_text()
    for service in ("global", "regional", "raft", "gateway"):
        unnamed = sorted(f for f in config_fields(service) if not re.search(rf"\b{f}\b", operations))
        check(f"docs/operations.md names every setting of {service}", [f"not `{f}`" for f in unnamed])

    print(f"helm: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
