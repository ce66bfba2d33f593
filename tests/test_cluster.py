"""cluster.yaml: accepted by Ray, closed to the world, clear about what to fill in, and in step with its page."""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = (ROOT / "cluster.yaml").read_text()
PAGE = (ROOT / "docs" / "cluster.md").read_text()
HEADER = CLUSTER.partition("\ncluster_name:")[0]
BLANK = r"FILL_IN_[A-Z_]+"
SAMPLES = {
    "FILL_IN_ACCOUNT": "123456789012",
    "FILL_IN_ADDRESS": "203.0.113.7/32",
    "FILL_IN_FILE_SYSTEM": "fs-0123456789abcdef0",
    "FILL_IN_IMAGE": "ami-0123456789abcdef0",
    "FILL_IN_INSTANCE_PROFILE": "sweeper-head",
    "FILL_IN_REGION": "us-west-2",
    "FILL_IN_SECURITY_GROUP": "sg-0123456789abcdef0",
    "FILL_IN_ZONES": "us-west-2a,us-west-2b",
}
COMMAND_LISTS = [
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
]


def filled_in(text: str) -> str:
    return re.sub(BLANK, lambda blank: SAMPLES[blank[0]], text)


def config() -> dict[str, Any]:
    filled: dict[str, Any] = yaml.safe_load(filled_in(CLUSTER))
    return filled


def on_premise_config() -> dict[str, Any]:
    """What docs/cluster.md says to make of cluster.yaml for one's own machines."""
    kept = config()
    for key in ["head_node_type", "available_node_types", "head_setup_commands"]:
        del kept[key]
    own: dict[str, Any] = yaml.safe_load(code_block("yaml"))
    return kept | own


def code_block(language: str) -> str:
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (block,) = blocks
    return block


def commands_of(configuration: dict[str, Any]) -> list[str]:
    return [command for name in COMMAND_LISTS for command in configuration.get(name, [])]


def ray_starts(configuration: dict[str, Any]) -> list[str]:
    return [command for command in commands_of(configuration) if "ray start" in command]


def commands_at_the_top() -> list[str]:
    return re.findall(r"^#   (ray .*)$", HEADER, re.MULTILINE)


def ray_commands_on_the_page() -> list[str]:
    return re.findall(r"`(ray [a-z-]+ cluster\.yaml[^`]*)`", PAGE)


def exported(configuration: dict[str, Any]) -> dict[str, str]:
    """What the shells of the head find in their environment."""
    lines = [c for c in commands_of(configuration) if ">> ~/.bashrc" in c]
    return dict(pair.split("=", 1) for line in lines for pair in re.findall(r"\b[A-Z_]+=[^ ']+", line))


def sweeper_commands() -> list[str]:
    return sorted(set(re.findall(r"'(python -m sweeper [^']+)'", CLUSTER)))


def parse(command: click.Command, words: list[str]) -> click.Context:
    """Read a command line as its program would, down the groups, without running it."""
    context = command.make_context(command.name, list(words))
    if not isinstance(command, click.Group):
        return context
    _, subcommand, rest = command.resolve_command(context, words)
    assert subcommand is not None
    return parse(subcommand, rest)


def parse_ray(command: str) -> click.Context:
    from ray.scripts.scripts import cli

    program, *words = shlex.split(command, comments=True)
    assert program == "ray"
    return parse(cli, words)


@pytest.mark.parametrize("text", [CLUSTER, filled_in(CLUSTER)], ids=["as it is", "filled in"])
def test_ray_accepts_it_on_the_laptop_and_again_on_the_head(text: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    on_laptop = prepare_config(yaml.safe_load(text))
    validate_config(on_laptop)
    validate_config(prepare_config(on_laptop))


def test_ray_accepts_the_variant_for_own_machines() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(on_premise_config())
    validate_config(prepared)
    assert prepared["provider"]["type"] == "local"
    assert "--num-cpus=0 --num-gpus=0" in ray_starts(prepared)[0]


def test_every_blank_is_listed_at_the_top_and_explained_on_the_page() -> None:
    listed = re.findall(rf"^#   ({BLANK}) ", HEADER, re.MULTILINE)
    used = set(re.findall(BLANK, CLUSTER.removeprefix(HEADER)))
    assert sorted(listed) == sorted(used)
    assert used <= set(re.findall(BLANK, PAGE))
    assert not re.search(BLANK, filled_in(CLUSTER) + filled_in(PAGE))


def test_nothing_is_open_to_the_world() -> None:
    for text in [CLUSTER, PAGE]:
        assert "0.0.0.0" not in text
        assert "::/0" not in text
    for node_type in config()["available_node_types"].values():
        assert all(group.startswith("sg-") for group in node_type["node_config"]["SecurityGroupIds"])
    assert "--dashboard-host=127.0.0.1" in ray_starts(config())[0]


def test_nothing_is_scheduled_on_the_head_and_four_quarter_packs_fit_a_worker() -> None:
    head = config()["available_node_types"][config()["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    workers = [
        t for name, t in config()["available_node_types"].items() if name != config()["head_node_type"]
    ]
    assert len({worker["node_config"]["InstanceType"] for worker in workers}) == 1
    for worker in workers:
        assert worker["min_workers"] == 0
        assert worker["resources"]["GPU"] == 1
        assert worker["resources"]["CPU"] >= 4
        assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
        assert "IamInstanceProfile" not in worker["node_config"]


@pytest.mark.parametrize("configuration", [config(), on_premise_config()], ids=["aws", "own machines"])
def test_no_node_starts_without_the_token_and_the_shared_folder(configuration: dict[str, Any]) -> None:
    assert "~/.ray/auth_token" in configuration["file_mounts"]
    assert len(ray_starts(configuration)) == 2
    for command in ray_starts(configuration):
        before, _, after = command.partition("ray start ")
        assert "RAY_AUTH_MODE=token " in before
        assert "mountpoint -q /mnt/sweeper && " in before
        assert not parse_ray(f"ray start {after}").args


def test_the_plain_command_needs_no_flag() -> None:
    assert "python -m sweeper run factorvae_gamma" in sweeper_commands()
    found, kinds = exported(config()), config()["available_node_types"]
    assert found["SWEEPER_STORAGE"] == "/mnt/sweeper"
    assert found["RAY_AUTH_MODE"] == "token"
    kind, _, number = found["SWEEPER_CLUSTER_GPUS"].partition(":")
    assert int(number) == config()["max_workers"] * kinds["gpu"]["resources"]["GPU"]
    assert f"one {kind} each" in PAGE
    assert exported(on_premise_config())["SWEEPER_STORAGE"] == "/mnt/sweeper"


def test_every_shell_command_is_well_formed() -> None:
    for command in commands_of(config()) + commands_of(on_premise_config()) + [code_block("sh")]:
        subprocess.run(["bash", "-n", "-c", filled_in(command)], check=True)


def test_the_shared_folder_is_a_line_that_fstab_understands() -> None:
    (mount,) = [command for command in config()["initialization_commands"] if "tee -a /etc/fstab" in command]
    echoed = re.search(r"echo (.*) \| ", mount)
    assert echoed is not None
    device, folder, kind, options, *numbers = echoed[1].split()
    assert device == "fs-0123456789abcdef0.efs.us-west-2.amazonaws.com:/"
    assert (folder, kind, numbers) == ("/mnt/sweeper", "nfs4", ["0", "0"])
    assert {"hard", "lookupcache=positive", "_netdev", "nofail"} <= set(options.split(","))


def test_every_package_of_the_project_reaches_the_nodes() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = setuptools["packages"]["find"]["include"]
    mounts = config()["file_mounts"]
    for name in {package.rstrip("*") for package in packages}:
        assert mounts[f"~/code/{name}"] == name
    assert "." not in mounts.values()


@pytest.mark.parametrize("command", [*commands_at_the_top(), *ray_commands_on_the_page()])
def test_every_ray_command_exists_with_its_options(command: str) -> None:
    assert parse_ray(command).params["cluster_config_file"] == "cluster.yaml"


@pytest.mark.parametrize("command", sweeper_commands())
def test_every_sweeper_command_exists_with_its_options(command: str) -> None:
    from sweeper.cli import app as cli

    (group,) = [value for value in vars(cli).values() if isinstance(value, click.Group)]
    parse(group, shlex.split(command)[3:])


def test_the_role_allows_what_the_autoscaler_does_and_no_more() -> None:
    statements = json.loads(filled_in(code_block("json")))["Statement"]
    actions = [
        a for s in statements for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    ]
    calls_of_the_node_provider = {"DescribeInstances", "RunInstances", "CreateTags", "TerminateInstances"}
    assert set(actions) == {f"ec2:{call}" for call in calls_of_the_node_provider}

    # A role written for another cluster or instance type would refuse every worker.
    worker = config()["available_node_types"]["gpu"]["node_config"]
    conditions = [s["Condition"]["StringEquals"] for s in statements if "Condition" in s]
    for condition in conditions:
        assert condition.get("ec2:InstanceType", worker["InstanceType"]) == worker["InstanceType"]
        for tag in ["aws:RequestTag/ray-cluster-name", "aws:ResourceTag/ray-cluster-name"]:
            assert condition.get(tag, config()["cluster_name"]) == config()["cluster_name"]
    (unbounded,) = [s for s in statements if s["Resource"] == "*"]
    assert unbounded["Action"] == "ec2:DescribeInstances"
