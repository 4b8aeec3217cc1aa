import errno
import os
import shutil
import stat
import subprocess
import sys
import threading

import pytest

from lmvp import config
from lmvp.errors import DamagedFile, InvalidArgument, InvalidName, LmvpError

URL = "https://models.example.org"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in ("LMVP_URL", "LMVP_TOKEN", "LMVP_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LMVP_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    config.set_project(None)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_homes(home, monkeypatch):
    assert config.data_home() == home
    assert config.config_home() == home / "config"
    monkeypatch.setenv("LMVP_HOME", "~/models")
    assert config.data_home().is_absolute()
    assert "~" not in str(config.data_home())
    monkeypatch.delenv("LMVP_HOME")
    assert config.data_home().name == "lmvp"
    assert config.config_home() != config.data_home() or os.name != "posix"


def test_the_server_is_argument_then_environment_then_login_then_none(monkeypatch):
    assert config.server_url() is None
    config.login(URL, "secret-one")
    assert config.server_url() == URL
    monkeypatch.setenv("LMVP_URL", "http://other:8000/")
    assert config.server_url() == "http://other:8000"
    assert config.server_url("http://third") == "http://third"


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("HTTP://Host:80/", "http://host"),
        ("https://h:443", "https://h"),
        ("https://h:8443/a/b//", "https://h:8443/a/b"),
        (" http://127.0.0.1:9 ", "http://127.0.0.1:9"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("http://my_host", "http://my_host"),
    ],
)
def test_urls_have_one_plain_form(url, plain):
    assert config.check_url(url) == plain


@pytest.mark.parametrize(
    "url",
    [
        "", "h", "ftp://h", "http://", "https:///x", "http://h:0", "http://h:99999", "http://h:x", "http://h?x=1", "http://h#x",
        "http://[::1", "http://h h", "http://h\u00f6st", "http://-h", "file:///etc/passwd", "http://h/a\tb", 3, None,
    ],
)  # fmt: skip
def test_bad_urls_are_refused_with_a_hint(url):
    with pytest.raises(InvalidArgument) as caught:
        config.check_url(url)
    assert caught.value.hint


def test_a_bare_host_is_told_what_to_write():
    with pytest.raises(InvalidArgument, match=r"write https://models\.example\.org:8000"):
        config.check_url("models.example.org:8000")


@pytest.mark.parametrize(
    ("text", "scheme"),
    [("localhost:80", "http"), ("127.0.0.1:8765", "http"), ("localhost.example.org", "https"), ("1270.org", "https")],
)
def test_a_bare_host_of_this_machine_is_told_of_plain_http(text, scheme):
    with pytest.raises(InvalidArgument) as caught:
        config.check_url(text)
    assert caught.value.hint == f"write {scheme}://{text}"


@pytest.mark.parametrize("url", ["http://ada:geheim@h", "ada:geheim@h", "http://geheim@h:x/", "ftp://geheim@h"])
def test_a_password_in_a_url_is_refused_and_not_shown(url):
    with pytest.raises(InvalidArgument) as caught:
        config.check_url(url)
    assert "geheim" not in str(caught.value)


def test_a_token_goes_only_to_its_origin(monkeypatch):
    config.login(URL, "secret-one")
    assert config.token_for(URL + "/some/path") == "secret-one"
    for other in (
        "http://models.example.org",
        URL + ":8443",
        "https://models.example.org.evil.example",
        "https://example.org",
    ):
        assert config.token_for(other) is None
        assert config.token_for(other, "given") == "given"
    monkeypatch.setenv("LMVP_TOKEN", "from-env")
    assert config.token_for(URL) == "secret-one", "LMVP_TOKEN is for LMVP_URL only, and that is not set"
    monkeypatch.setenv("LMVP_URL", "https://team.example.org/lmvp")
    assert config.token_for("https://team.example.org") == "from-env"
    assert config.token_for(URL) == "secret-one"
    assert config.token_for("https://elsewhere.example") is None


def test_files_are_private_from_the_start(home):
    previous = os.umask(0)
    try:
        config.login(URL, "secret-one")
    finally:
        os.umask(previous)
    assert mode(home / "config") == 0o700
    assert mode(home / "config" / "credentials.json") == 0o600
    assert sorted(p.name for p in (home / "config").iterdir() if p.suffix != ".lock") == ["credentials.json"]


def test_a_file_that_others_can_read_is_closed_when_it_is_read(home):
    config.login(URL, "secret-one")
    path = home / "config" / "credentials.json"
    path.chmod(0o644)
    assert config.token_for(URL) == "secret-one"
    assert mode(path) == 0o600


def test_logout_forgets(home):
    config.login(URL, "secret-one")
    config.login("https://second.example", "secret-two")
    assert config.server_url() == "https://second.example"
    assert config.logout() is True
    assert config.server_url() is None
    assert config.token_for("https://second.example") is None
    assert config.token_for(URL) == "secret-one"
    assert config.logout(URL) is True
    assert config.logout(URL) is False
    assert config.logout() is False
    assert "secret" not in (home / "config" / "credentials.json").read_text()


def test_logins_at_once_are_all_kept():
    urls = [f"https://s{n}.example" for n in range(12)]
    threads = [threading.Thread(target=config.login, args=(url, f"token-{url}")) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [config.token_for(url) for url in urls] == [f"token-{url}" for url in urls]


@pytest.mark.parametrize("token", ["two words", "with\nnewline", "schl\u00fcssel", " ", 5, "x" * 5000])
def test_what_is_no_token_is_refused_and_not_shown(token):
    with pytest.raises(InvalidArgument) as caught:
        config.login(URL, token)
    assert str(token).strip() not in str(caught.value) or token == " "
    assert config.server_url() is None


def test_a_damaged_file_is_named(home):
    config.login(URL, "secret-one")
    (home / "config" / "credentials.json").write_text('{"tokens": "secret-one"')
    with pytest.raises(DamagedFile, match=r"credentials\.json is damaged") as caught:
        config.server_url()
    assert "secret-one" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_credentials_do_not_show_tokens():
    assert "secret" not in repr(config.Credentials(URL, {URL: "secret"}))


def test_a_home_that_is_a_file_is_named(home):
    home.write_text("")
    with pytest.raises(LmvpError, match="is not a folder") as caught:
        config.login(URL, "secret-one")
    assert "LMVP_HOME" in caught.value.hint


def test_the_current_project(monkeypatch):
    assert config.current_project() == "default"
    monkeypatch.setenv("LMVP_PROJECT", "from-env")
    assert config.current_project() == "from-env"
    config.set_project("digits")
    assert config.current_project() == "digits"
    assert config.current_project("given") == "given"
    config.set_project(None)
    assert config.current_project() == "from-env"


def test_bad_projects(monkeypatch):
    with pytest.raises(InvalidName):
        config.set_project("../x")
    monkeypatch.setenv("LMVP_PROJECT", "a b")
    with pytest.raises(InvalidName, match="the project name 'a b'"):
        config.current_project()


def test_the_url_behind_an_lmvp_reference():
    assert config.url_of("models.example.org") == URL
    assert config.url_of("127.0.0.1:8000") == "http://127.0.0.1:8000"
    assert config.url_of("[::1]:8000") == "http://[::1]:8000"
    assert config.url_of("localhost.evil.example") == "https://localhost.evil.example"
    config.login("http://intranet:8000/lmvp", "t")
    assert config.url_of("Intranet:8000") == "http://intranet:8000/lmvp"


def test_a_home_below_a_file_names_the_file(home, monkeypatch):
    home.write_text("")
    for place in (home, home / "deeper" / "down"):
        monkeypatch.setenv("LMVP_HOME", str(place))
        with pytest.raises(InvalidArgument, match=f"^{home} is not a folder") as caught:
            config.server_url()
        assert "LMVP_HOME" in caught.value.hint


def test_a_home_of_nobody_is_said(monkeypatch):
    monkeypatch.setenv("LMVP_HOME", "~nobody-of-that-name/models")
    with pytest.raises(InvalidArgument, match="LMVP_HOME is '~nobody-of-that-name/models'"):
        config.data_home()


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_a_home_where_nobody_may_read_is_said(home):
    """In a process without the right of root to read whatever there is."""
    home.mkdir()
    home.chmod(0)
    code = "from lmvp.cli import main; raise SystemExit(main(['status']))"
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if without and shutil.which("setpriv") is None:
        pytest.skip("root reads everything")
    answer = subprocess.run([*without, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    home.chmod(0o700)
    assert answer.stderr.startswith(f"lmvp: cannot read {home}/config/credentials.json: permission denied")
    assert "LMVP_HOME" in answer.stderr


def test_login_works_on_a_file_system_without_locks(home, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    config.login("http://127.0.0.1:9", "secret")
    assert config.token_for("http://127.0.0.1:9") == "secret"


def test_server_refuses_a_file_system_without_locks_and_names_the_override(home, monkeypatch):
    from lmvp import local
    from lmvp.errors import LmvpError
    from lmvp_server.data_folder import DataFolder

    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    for start in (local.find_or_start, lambda: DataFolder.open(home, patience=0.1)):
        with pytest.raises(LmvpError, match="has no locks") as refused:
            start()
        assert "LMVP_HOME" in refused.value.hint
