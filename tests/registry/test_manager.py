"""Which plugins are loaded, how often, and what users can say about it."""

from __future__ import annotations

import pytest

from trilemma.errors import PluginUnavailable, UsageError
from trilemma.registry import Catalog, catalog
from trilemma.registry.requirements import unmet_requirement


def test_the_allow_list_leaves_built_ins_and_picks_third_parties(site, good):
    for name in ("one", "two", "three"):
        site.install(name, good.format(name=name))
    records = site.records(env={"TRILEMMA_PLUGINS": "one, three/three"})
    status = {address: record["status"] for address, record in records.items()}
    assert status["trilemma/ddim"] == status["one/one"] == status["three/three"] == "ok"
    assert status["two/two"] == "disabled"
    assert records["two/two"]["reason"] == "not named in TRILEMMA_PLUGINS"


def test_an_empty_allow_list_loads_no_third_party(site, good):
    site.install("one", "raise AssertionError" + good.format(name="one"))
    assert site.records(env={"TRILEMMA_PLUGINS": ""})["one/one"]["status"] == "disabled"


def test_the_doctor_names_what_the_allow_list_names_in_vain(site):
    done = site.trilemma("doctor", "--no-torch", env={"TRILEMMA_PLUGINS": "ghost"})
    assert "plugins: ghost" in done.stdout


@pytest.mark.parametrize("name", ["one", "trilemma/ddim", "ddim"])
def test_a_plugin_can_be_left_out(site, good, name):
    site.install("one", good.format(name="one"))
    records = site.records("--no-plugin", name)
    disabled = [address for address, record in records.items() if record["status"] == "disabled"]
    assert disabled == ["one/one" if name == "one" else "trilemma/ddim"]


def test_leaving_out_an_unknown_plugin_names_the_nearest(site):
    done = site.trilemma("--no-plugin", "objektives", "plugins")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --no-plugin objektives: no such plugin; did you mean 'objectives'?")


def test_a_left_out_plugin_is_named_where_its_component_is_missed(site):
    done = site.trilemma("--no-plugin", "ddim", "plugins", "show", "ddim")
    assert "left out by --no-plugin" in done.stdout


def test_strict_plugins_make_a_bad_plugin_an_error(site):
    site.install("bad", "raise ValueError('no')")
    done = site.trilemma("plugins", env={"TRILEMMA_STRICT_PLUGINS": "1"})
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "error: plugin bad/bad is failed: ValueError: no\n"


def test_traces_of_bad_plugins_appear_on_request_only(site):
    site.install("bad", "raise ValueError('no')")
    assert site.trilemma("plugins").stderr == ""
    traced = site.trilemma("plugins", env={"TRILEMMA_TRACE_PLUGINS": "1"})
    assert traced.stderr.startswith("bad/bad: Traceback")
    assert "bad.py" in traced.stderr


def test_plugins_are_scanned_once_by_many_threads(site, good):
    site.install("counted", "import time; print('scanned'); time.sleep(0.05)\n" + good.format(name="c"))
    done = site.python(
        """
        import threading
        from trilemma.registry import Catalog, catalog
        found = []
        threads = [threading.Thread(target=lambda: found.append(catalog())) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(found), len(set(map(id, found))), found[0].find("sampler", "c").spec.name)
        """
    )
    assert done.stdout == "8 1 c\n"
    assert done.stderr.count("scanned") == 1


def test_order_is_by_distribution_and_name_with_built_ins_first(site, good):
    for name in ("zebra", "alpha"):
        site.install(name, good.format(name=name))
    addresses = list(site.records())
    ours = [address for address in addresses if address.startswith("trilemma/")]
    assert ours[0] == "trilemma/cli"
    assert ours[1:] == sorted(ours[1:])
    assert addresses == [*ours, "alpha/alpha", "zebra/zebra"]


def test_requirements_on_trilemma_are_compared_with_its_version():
    assert unmet_requirement(["trilemma>=0.1", "numpy>=99"], "0.1.0") is None
    assert unmet_requirement(["trilemma-angular>=99"], "0.1.0") is None
    assert unmet_requirement(['trilemma>=99; extra == "x"'], "0.1.0") is None
    assert unmet_requirement(["trilemma[train] (<0.1)"], "0.1.0") == (
        "needs trilemma<0.1, this is 0.1.0; upgrade the older one"
    )
    assert "cannot be read" in (unmet_requirement(["trilemma>>1"], "0.1.0") or "")


def test_unknown_names_bring_the_nearest_and_all_known_ones():
    with pytest.raises(
        PluginUnavailable, match=r"^unknown sampler 'dddim'; did you mean 'ddim'.* known: .*ddpm"
    ):
        catalog().find("sampler", "dddim")
    with pytest.raises(PluginUnavailable, match=r"^unknown kernel 'x': no kernel is installed"):
        Catalog([]).find("kernel", "x")


def test_a_failed_plugin_is_named_where_its_component_is_asked_for(site):
    site.install("midpoint", "import no_such_dependency")
    done = site.python(
        """
        from trilemma import lookup
        try:
            lookup.build("sampler", "midpoint")
        except Exception as error:
            print(type(error).__name__, error)
        """
    )
    assert done.stdout == (
        "PluginUnavailable sampler 'midpoint': plugin midpoint/midpoint is failed: "
        "the module 'no_such_dependency' is not installed; install what the plugin requires\n"
    )


@pytest.mark.parametrize(
    ("target", "extra", "message"),
    [
        ("third:Missing", None, "there is no class third:Missing; repair third"),
        ("third_deep:X", None, "needs the module 'third_deep', which is not installed; install third again"),
        (
            "needs_torchsde:X",
            "sde",
            "needs the module 'torchsde_missing', which is not installed; pip install \"third[sde]\"",
        ),
        (
            "needs_torchsde:X",
            None,
            "needs the module 'torchsde_missing', which is not installed; install what third requires",
        ),
        ("explodes:X", None, "importing explodes failed: OSError: wrong torch; repair third"),
        ("quits:X", None, "importing quits failed: SystemExit: 1; repair third"),
        ("third:NUMBER", None, "there is no class third:NUMBER; repair third"),
    ],
)
def test_a_target_that_cannot_be_imported_says_what_would_bring_it(site, target, extra, message):
    (site.path / "needs_torchsde.py").write_text("import torchsde_missing")
    (site.path / "explodes.py").write_text("raise OSError('wrong torch')")
    (site.path / "quits.py").write_text("raise SystemExit(1)")
    site.install(
        "third",
        "from trilemma.registry import SamplerSpec, hookimpl\nNUMBER = 3\n@hookimpl\ndef trilemma_register(registry):\n"
        f"    registry.sampler(SamplerSpec(name='third', target={target!r}, summary='s', extra={extra!r}))\n",
    )
    done = site.python(
        """
        from trilemma import lookup
        from trilemma.errors import PluginUnavailable
        try:
            lookup.build("sampler", "third")
        except PluginUnavailable as error:
            print(error)
        """
    )
    assert done.stderr == ""
    assert message in done.stdout


def test_leaving_out_after_the_first_look_up_is_refused(site):
    done = site.python(
        """
        from trilemma import registry as plugins
        plugins.catalog()
        try:
            plugins.exclude(["ddim"])
        except Exception as error:
            print(error)
        """
    )
    assert done.stdout.startswith("plugins are already loaded")


def test_unknown_component_kind_is_a_usage_error_of_the_command(site):
    done = site.trilemma("plugins", "--kind", "smapler")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'sampler'" in done.stderr


def test_usage_error_is_a_value_error():
    assert issubclass(UsageError, ValueError)
