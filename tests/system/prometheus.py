"""A strict reader of the Prometheus text format: what a scraper would refuse is an AssertionError."""
import math
import re

SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def read_labels(text):
    labels, at = {}, 0
    while at < len(text):
        match = LABEL.match(text, at)
        assert match, f"labels: {text}"
        assert match[1] not in labels, f"label twice: {text}"
        labels[match[1]] = match[2]
        at = match.end()
    return labels


def family_of(name, families):
    for suffix in ("", "_bucket", "_sum", "_count"):
        base = name[:len(name) - len(suffix)] if suffix else name
        if name.endswith(suffix) and base in families and (not suffix or families[base]["type"] == "histogram"):
            return base
    raise AssertionError(f"{name} has no # TYPE before it")


def check_histograms(name, samples):
    series = {}
    for sample, labels, value in samples:
        key = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
        one = series.setdefault(key, {"buckets": []})
        if sample.endswith("_bucket"):
            one["buckets"].append((float(labels["le"].replace("+Inf", "inf")), value))
        else:
            one[sample[len(name):]] = value
    for key, one in series.items():
        bounds = [bound for bound, _ in one["buckets"]]
        counts = [count for _, count in one["buckets"]]
        assert bounds == sorted(set(bounds)) and bounds[-1] == math.inf, f"{name}{key}: {bounds}"
        assert counts == sorted(counts) and counts[-1] == one["_count"], f"{name}{key}: {counts} {one}"
        assert (one["_sum"] > 0) == (one["_count"] > 0), f"{name}{key}: {one}"


def read(text):
    """{family: {"type", "help", "samples": [(name, labels, value)]}}"""
    families, seen = {}, set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# "):
            _, kind, name, rest = line.split(" ", 3)
            family = families.setdefault(name, {"samples": []})
            assert kind.lower() in ("help", "type") and kind.lower() not in family, line
            assert not family["samples"], f"comes after its samples: {line}"
            family[kind.lower()] = rest
            continue
        match = SAMPLE.match(line)
        assert match, f"not a sample: {line}"
        labels = read_labels(match[2] or "")
        identity = (match[1], tuple(sorted(labels.items())))
        assert identity not in seen, f"twice: {line}"
        seen.add(identity)
        families[family_of(match[1], families)]["samples"].append((match[1], labels, float(match[3])))
    for name, family in families.items():
        assert family.get("help") and family.get("type") in ("counter", "gauge", "histogram"), f"{name}: {family}"
        assert (family["type"] == "counter") == name.endswith("_total"), f"{name} is a {family['type']}"
        if family["type"] == "histogram":
            assert name.endswith("_seconds"), name
            check_histograms(name, family["samples"])
    return families
