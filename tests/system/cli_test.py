#!/usr/bin/env python3
"""pfcli against a real node: every command, both output forms, and that each mistake is one clear line
on stderr and a status that is not 0. Usage: TOOLS_FOLDER"""
import contextlib
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import time

from cluster import Cluster


class Cli:
    def __init__(self, node):
        self.program = f"{node.tools}/pfcli"
        self.conductor = node.conductor

    def run(self, *words, by_environment=False):
        command = [self.program]
        if not by_environment:
            command += ["--conductor", self.conductor]
        environment = {"PF_CONDUCTOR": self.conductor} if by_environment else {}
        return subprocess.run(command + list(words), capture_output=True, text=True, timeout=60,
                              env=environment, check=False)

    def good(self, *words, **options):
        done = self.run(*words, **options)
        assert done.returncode == 0, f"{words}: {done.returncode} {done.stderr}"
        assert done.stderr == "", f"{words}: {done.stderr}"
        return done.stdout

    def json(self, *words):
        return json.loads(self.good("-o", "json", *words))

    def bad(self, expect, *words):
        done = self.run(*words)
        assert done.returncode != 0, f"{words} succeeded: {done.stdout}"
        assert done.stdout == "", f"{words}: {done.stdout}"
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("pfcli: "), done.stderr
        assert expect in done.stderr, f"{words}: {done.stderr!r} does not say {expect!r}"


def volumes(cli):
    assert "10 GiB" in cli.good("volume", "create", "a", "--size", "10G")
    cli.good("volume", "create", "b c", "--size", "1048576K", "--replicas", "1")
    assert cli.json("volume", "show", "b c")["size_bytes"] == 1 << 30
    assert [v["name"] for v in cli.json("volume", "list")] == ["a", "b c"]
    table = cli.good("volume", "list", by_environment=True).splitlines()
    assert table[0].split() == ["NAME", "SIZE", "REPLICAS", "SHARDS", "HEALTH", "OPEN"]
    assert table[1].split() == ["a", "10", "GiB", "1", "1", "ok", "0"]
    assert cli.good("-o", "names", "volume", "list") == "a\nb c\n"
    assert cli.json("volume", "resize", "a", "--size", "20G")["size_bytes"] == 20 << 30
    assert cli.json("volume", "rename", "b c", "d")["name"] == "d"
    assert "deleted" in cli.good("volume", "delete", "d")
    cli.bad("does not exist", "volume", "show", "d")
    cli.bad("does not exist", "volume", "delete", "d")
    cli.bad("exists already", "volume", "create", "a", "--size", "1G")
    cli.bad("cannot shrink", "volume", "resize", "a", "--size", "1G")
    for size in ["0", "4097", "2P", "99999999999999999999", "1.3", "x"]:
        cli.bad("size", "volume", "create", "e", "--size", size)
    cli.bad("size", "volume", "create", "e", "--size=-1G")
    for name in ["", "a/b", "a@b", "a:b", "a\nb", "n" * 97]:
        cli.bad("name", "volume", "create", name, "--size", "1G")
    cli.bad("3 replicas need 3 stores, but the cluster has 1", "volume", "create", "e", "--size",
            "1G", "--replicas", "3")
    assert [v["name"] for v in cli.json("volume", "list")] == ["a"]


def names(cli):
    """-o names, where there are some; elsewhere it is refused before anything is done."""
    assert cli.good("-o", "names", "volume", "create", "n", "--size", "1G") == "n\n"
    assert cli.good("-o", "names", "volume", "show", "n") == "n\n"
    assert cli.good("-o", "names", "volume", "resize", "n", "--size", "2G") == "n\n"
    assert cli.good("-o", "names", "volume", "rename", "n", "n2") == "n2\n"
    store = cli.json("store", "list")[0]
    assert cli.good("-o", "names", "store", "list") == store["uuid"] + "\n"
    assert cli.good("-o", "names", "store", "show", str(store["id"])) == store["uuid"] + "\n"
    for words in [["status"], ["version"], ["volume", "delete", "n2"], ["volume", "accept-loss", "n2", "--force"],
                  ["tray", "remove", cli.json("tray", "list")[0]["uuid"], "--force"]]:
        cli.bad("-o names", "-o", "names", *words)
    cli.good("volume", "delete", "n2")


@contextlib.contextmanager
def foreign_server(body, status=200, seen=None):
    """Some other server: the same body for every request. `seen` gets what was asked."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if seen is not None:
                seen.append(self.requestline)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # it may have heard enough
                self.wfile.write(body)
        do_POST = do_DELETE = do_PATCH = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def not_a_conductor(cli):
    for body in (b"", b"{}", b"[]", b"null", b'"x"', b"<html>", b'{"volumes": 3, "stores": [1], "trays": [{}]}',
                 b'{"volumes": [{"name": "v"}], "more": true}', b'{"version": 7}'):
        with foreign_server(body) as address:
            for words in (["volume", "list"], ["volume", "show", "v"], ["volume", "create", "v", "--size", "1G"],
                          ["volume", "delete", "v"], ["volume", "accept-loss", "v"], ["store", "list"],
                          ["store", "show", "1"], ["tray", "list"], ["tray", "add", "/x"], ["status"], ["version"]):
                if body.startswith(b'{"volumes": [') and words == ["volume", "list"]:
                    cli.good("--conductor", address, *words)  # ends, as the page brings nothing new
                else:
                    cli.bad(f"{address} answers, but not as a PureFlash conductor", "--conductor", address, *words)


def regression_a_request_that_may_still_be_done_is_not_repeated(cli):
    """The repeated create found the volume of the first, and said that it exists already."""
    seen = []
    body = b'{"code": "timed_out", "message": "no answer in time: it may still be done, look before repeating"}'
    with foreign_server(body, 504, seen) as address:
        cli.bad("look before repeating", "--conductor", address, "volume", "create", "v", "--size", "1G")
    assert len(seen) == 1, seen


def what_really_happened(cli):
    """A lack of memory or of room for the output is not the conductor's fault."""
    with foreign_server(b" " * (60 << 20)) as address:
        little = ["bash", "-c", 'ulimit -v 100000; exec "$@"', "bash"]
        done = subprocess.run([*little, cli.program, "--conductor", address, "volume", "list"], capture_output=True,
                              text=True, timeout=60, check=False)
        assert done.returncode == 1 and done.stderr == "pfcli: not enough memory for the answer\n", done.stderr
    with foreign_server(b" " * (65 << 20)) as address:
        cli.bad("answers, but not as a PureFlash conductor", "--conductor", address, "volume", "list")
    for words in (["version"], ["completion", "bash"]):
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run([cli.program, "--conductor", cli.conductor, *words], stdout=full,
                                  stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert done.returncode == 1 and "No space left on device" in done.stderr, done.stderr


def trays(cli, folder):
    before = cli.json("tray", "list")
    assert len(before) == 1 and before[0]["health"] == "ok"
    added = cli.json("tray", "add", f"{folder}/second.img", "--size", "1G")
    assert len(cli.json("tray", "list")) == 2
    cli.bad("", "tray", "add", f"{folder}/second.img", "--size", "1G")
    assert "removed" in cli.good("tray", "remove", added["uuid"])
    cli.bad("does not exist", "tray", "remove", added["uuid"])
    cli.bad("would be lost", "tray", "remove", before[0]["uuid"])
    cli.bad("tray '' is not a UUID", "tray", "remove", "")
    cli.bad("--size SIZE", "tray", "add", f"{folder}/missing.img")
    for size in ("0", "0K"):
        cli.bad("size is zero", "tray", "add", f"{folder}/missing.img", "--size", size)
        cli.bad("size is zero", "volume", "create", "z", "--size", "1G", "--shard-size", size)
    cli.bad("is not a number", "tray", "add", f"{folder}/missing.img", "--size", "")
    assert len(cli.json("tray", "list")) == 1


def rest(cli):
    stores = cli.json("store", "list")
    assert len(stores) == 1 and stores[0]["health"] == "ok"
    assert stores[0]["data_address"] in cli.good("store", "show", str(stores[0]["id"]))
    cli.bad("does not exist", "store", "show", "77")
    assert cli.json("status")["health"] == "ok"
    assert "stores online" in cli.good("status")
    cli.good("top")
    assert isinstance(cli.json("top"), list)
    assert cli.json("version")["conductor"] is not None
    cli.bad("bash or zsh", "completion", "fish")
    for words in [["volume"], ["volume", "make"], ["nothing"], [], ["volume", "create", "x"],
                  ["-o", "xml", "status"]]:
        cli.bad("--help", *words)
    cli.bad("unknown command 'volum', known are volume, store", "volum", "list")
    cli.bad("unknown command 'lst', known are create, list", "volume", "lst")
    cli.bad("unknown option '--bogus'", "--bogus")
    for replicas in ("-1", "0", "many"):
        cli.bad(f"{replicas} not in range 1 to", "volume", "create", "x", "--size", "1G", "--replicas", replicas)
    for address in ["127.0.0.1", "x:y", ""]:
        cli.bad("HOST:PORT", "--conductor", address, "status")
    cli.bad("is it running", "--conductor", "127.0.0.1:1", "status")


def commands(cli, *words):
    """Each noun and verb as a pair: its path, what its help offers."""
    text = cli.good(*words, "--help")
    part = re.search(r"^Subcommands:\n(.*?)(?:^\S|\Z)", text, re.M | re.S)
    below = re.findall(r"^  (\S+)", part.group(1), re.M) if part else []
    yield " ".join(words), set(below) | set(re.findall(r"^  (?:-\w,)?(--[a-z-]+)", text, re.M))
    for word in below:
        yield from commands(cli, *words, word)


def completion_scripts(cli):
    """Both parse, and offer what the commands' own help does, no more and no less."""
    real = dict(commands(cli))
    assert {"--help", "--force"} == real["volume delete"] and "rename" in real["volume"], real
    for shell in ("bash", "zsh"):
        script = cli.good("completion", shell)
        # What needs zsh alone is inside expansions, which bash -n does not look at.
        for parser in filter(shutil.which, ("bash", shell)):
            subprocess.run([parser, "-n"], input=script, text=True, timeout=10, check=True)
        offered = dict(re.findall(r"^        '([a-z -]*)'\) offered='(.*)' ;;$", script, re.M))
        assert {path: set(words.split()) for path, words in offered.items()} == real, offered
        named = re.search(r"^        (.*)\) _pfcli_names volume list", script, re.M).group(1)
        assert named == "|".join(f"'volume {verb}'" for verb in ("show", "resize", "rename", "delete", "accept-loss"))
        for option, path in (("--write-cache", ["tray", "add"]), ("-o\\|--output", [])):
            values = re.search(rf"^        {option}\) offered='(.*)' ;;$", script, re.M).group(1)
            assert "{" + values.replace(" ", ",") + "}" in cli.good(*path, "--help"), values
    # Names that are zsh's own: `path` is the program path there, `words` the command line.
    assert not re.search(r"local [^\n]*\b(path|words)\b", script), script


class Shell:
    """Asks bash as TAB does: the words so far, cut as bash cuts them."""

    def __init__(self, cli, tools):
        self.script = f"PATH={tools}:$PATH\n" + cli.good("completion", "bash")

    def offers(self, *words):
        ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pfcli; printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", self.script + ask, "bash", *words], capture_output=True, text=True,
                              timeout=30, check=True)
        assert done.stderr == "", done.stderr
        return done.stdout.split("\n")[:-1]


def completion(cli, node):
    shell = Shell(cli, node.tools)
    here = ["--conductor", "127.0.0.1", ":", str(node.port("http"))]
    for name in ("tab one", "tab-two"):
        cli.good("volume", "create", name, "--size", "1G")
    assert {"volume", "store", "tray", "status", "top", "version"} <= set(shell.offers("pfcli", ""))
    assert shell.offers("pfcli", "vol") == ["volume"]
    assert shell.offers("pfcli", *here, "volume", "re") == ["resize", "rename"]
    assert "--replicas" in shell.offers("pfcli", "volume", "create", "x", "--re")
    assert shell.offers("pfcli", *here, "volume", "show", "tab") == ["tab\\ one", "tab-two"]
    assert shell.offers("pfcli", *here, "volume", "delete", "tab\\ ") == ["tab\\ one"]
    assert "a" in shell.offers("pfcli", "-o", "json", *here, "volume", "resize", "")
    assert shell.offers("pfcli", *here, "tray", "remove", "")[-1] == cli.json("tray", "list")[0]["uuid"]
    assert shell.offers("pfcli", "-o", "") == ["table", "json", "names"]
    assert "volume" in shell.offers("pfcli", "-o", "json", "")
    assert shell.offers("pfcli", "top", "--interval", "5", "--c") == ["--count"]
    assert "tab" not in " ".join(shell.offers("pfcli", "--conductor", "127.0.0.1", ":", "1", "volume", "show", ""))
    for name in ("tab one", "tab-two"):
        cli.good("volume", "delete", name)


def live(cli, node):
    """top, in a pipe and on a terminal, while a volume is read and written."""
    cli.good("volume", "create", "busy", "--size", "1G")
    load = subprocess.Popen([f"{node.tools}/pfdd", "if=/dev/zero", "of=pf:busy", "bs=4k", "status=none",
                             f"--conductor={node.conductor}"])
    try:
        for _ in range(100):
            rows = cli.json("top", "--interval", "0.2", "--count", "1")
            busy = [row for row in rows if row["name"] == "busy" and row["write_iops"] > 0]
            if busy:
                break
            time.sleep(0.1)
        assert busy[0]["write_bytes_per_second"] >= 4096 and 0 < busy[0]["write_latency_seconds"] < 60, busy
        for interval in ("nan", "0", "-1", "inf", "1x"):
            cli.bad("--interval", "top", "--interval", interval, "--count", "1")
        piped = cli.good("top", "--interval", "0.1", "--count", "2")
        assert "\x1b" not in piped and piped.count("NAME") == 2, piped
        command = f"{cli.program} --conductor {cli.conductor} top --interval 0.1 --count 2"
        shown = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, text=True, timeout=30,
                               check=True, stdin=subprocess.DEVNULL).stdout
        assert shown.count("\x1b[H\x1b[2J") == 2 and "busy" in shown, shown
    finally:
        load.kill()
        load.wait()
    cli.good("volume", "delete", "busy", "--force")


def main():
    with Cluster(sys.argv[1]) as node:
        cli = Cli(node)
        volumes(cli)
        names(cli)
        not_a_conductor(cli)
        regression_a_request_that_may_still_be_done_is_not_repeated(cli)
        what_really_happened(cli)
        trays(cli, node.data)
        rest(cli)
        completion_scripts(cli)
        completion(cli, node)
        live(cli, node)
        node.kill()
        node.start()
        assert cli.json("volume", "show", "a")["size_bytes"] == 20 << 30
        took = node.stop()
        clean = subprocess.run([f"{node.tools}/pfinspect", f"{node.data}/tray0.img", "verify"], capture_output=True,
                               text=True, timeout=60, check=True).stdout
        assert "damage: none\n" in clean, clean
        assert took < 5, f"the stop took {took:.1f} s"
    print("ok")


if __name__ == "__main__":
    main()
