"""Audits the packages of the lock files. Run by `make audit`. FOLDER contains the lock files and pyproject.toml.

- Each package is required by pyproject.toml, directly or indirectly.
- Each hash belongs to a file of that version on the package index. The file was not yanked.
- The index knows no vulnerability of the version. Some indexes list vulnerabilities only for the newest version.

Exit codes: 0 no finding, 1 findings. Checks that could not be made are printed, but are not findings.
"""

import argparse
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import requests
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version
from pip._internal.commands import create_command

LOCKS = {"requirements.lock": (), "requirements-dev.lock": ("dev",)}
"""The lock files, with the extras that each contains."""
ACCEPTED: dict[str, str] = {}
"""Vulnerabilities that do not affect the exporter, with the reason."""

Record = Callable[[str, str], None]
"""Records `(problem, package)`."""


@dataclass(frozen=True)
class Locked:
    """A package in a lock file."""

    name: str
    version: str
    hashes: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def read(lock: Path, found: Record) -> Iterator[Locked]:
    """Yield the packages of a lock file. Any other line is a finding."""
    for line in lock.read_text("utf-8").replace("\\\n", " ").splitlines():
        pin, *hashes = line.partition("#")[0].split("--hash=")
        if not pin.strip():
            continue
        try:
            requirement = Requirement(pin.strip())
            (only,) = requirement.specifier
            Version(only.version)
        except (InvalidRequirement, InvalidVersion, ValueError):
            found(f"{lock.name} has a line that pins nothing", pin.strip())
            continue
        if requirement.url or only.operator != "==" or not hashes:
            found(f"{lock.name} does not pin it to files of one version", requirement.name)
        yield Locked(canonicalize_name(requirement.name), only.version, frozenset(each.strip() for each in hashes))


def parts(requirement: Requirement) -> list[tuple[str, str]]:
    """Return the package and its requested extras as pairs of name and extra. The package itself has the extra ""."""
    return [(canonicalize_name(requirement.name), canonicalize_name(extra)) for extra in ("", *requirement.extras)]


def applies(requirement: Requirement, extra: str) -> bool:
    """Returns True if a requirement applies with that extra, on any platform."""
    extras = re.findall(r"""extra == ['"](.*?)['"]""", str(requirement.marker))
    return not extras or extra in [canonicalize_name(each) for each in extras]


def needed(wanted: Iterable[Requirement], requires: Callable[[str], list[str]]) -> set[str]:
    """Return the names of the packages and of all their dependencies."""
    seen: set[tuple[str, str]] = set()
    todo = [part for each in wanted for part in parts(each)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) not in seen:
            seen.add((name, extra))
            dependencies = (Requirement(each) for each in requires(name))
            todo += [part for each in dependencies if applies(each, extra) for part in parts(each)]
    return {name for name, _ in seen}


def check_requirements(locked: list[Locked], wanted: list[Requirement], found: Record, unknown: Record) -> None:
    """Find packages that are locked and not required, or required and not locked."""
    versions = {each.name: each.version for each in locked}

    def requires(name: str) -> list[str]:
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return []
        if package.version != versions.get(name, package.version):
            unknown("another version is installed, which may have other dependencies", f"{name} {versions[name]}")
        return package.requires or []

    for requirement in wanted:
        version = versions.get(canonicalize_name(requirement.name))
        if version is None or version not in requirement.specifier:
            found(f"pyproject.toml requires it, but the lock file has {version or 'none'}", str(requirement))
    for name in versions.keys() - needed(wanted, requires):
        found("nothing requires it", name)


class Index:
    """A package index with PyPI's simple and JSON APIs."""

    def __init__(self, url: str, certificates: str | None) -> None:
        self._simple = url.rstrip("/")
        self._json = f"{self._simple.removesuffix('/simple')}/pypi"
        self._session = requests.Session()
        self._session.verify = certificates or True

    def files(self, name: str) -> list[dict[str, Any]]:
        """Return all released files of a project (PEP 691).

        Raises:
            requests.RequestException: no response, or an invalid one.
        """
        accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
        return list(self._get(f"{self._simple}/{name}/", headers=accept)["files"])

    def vulnerabilities(self, name: str, version: str) -> list[dict[str, Any]] | None:
        """Return the known vulnerabilities of a version. Returns None if the index has no data on it.

        Raises:
            requests.RequestException: no response, or an invalid one.
        """
        for path in (f"{name}/{version}", name):
            try:
                release = self._get(f"{self._json}/{path}/json")
            except requests.HTTPError as error:
                if error.response is not None and error.response.status_code == requests.codes.not_found:
                    continue
                raise
            if Version(release["info"]["version"]) == Version(version):
                return [each for each in release["vulnerabilities"] if not each.get("withdrawn")]
        return None

    def _get(self, url: str, **options: Any) -> dict[str, Any]:
        response = self._session.get(url, timeout=60, **options)
        response.raise_for_status()
        content: dict[str, Any] = response.json()
        return content


def version_of(filename: str) -> Version | None:
    """Return the version of a wheel or source archive. Returns None for other files."""
    parse = parse_wheel_filename if filename.endswith(".whl") else parse_sdist_filename
    try:
        return parse(filename)[1]
    except ValueError:
        return None


def check_files(index: Index, package: Locked, found: Record) -> None:
    """Find hashes of files that are not on the index, belong to another version, or were yanked."""
    listed = {f"sha256:{each['hashes'].get('sha256')}": each for each in index.files(package.name)}
    for unlisted in package.hashes - listed.keys():
        found(f"the index has no file of {unlisted}", str(package))
    for file in (listed[each] for each in package.hashes & listed.keys()):
        if version_of(file["filename"]) != Version(package.version):
            found(f"a hash belongs to {file['filename']}", str(package))
        if file.get("yanked", False) is not False:
            found(f"it was yanked: {file['yanked']}", str(package))


def check_vulnerabilities(index: Index, package: Locked, found: Record, unknown: Record) -> None:
    """Find the known vulnerabilities of a version."""
    known = index.vulnerabilities(package.name, package.version)
    if known is None:
        unknown("the index lists vulnerabilities of the newest version only, and this is an older one", str(package))
    for each in known or ():
        names = {each["id"], *each.get("aliases", ())}
        if not names & ACCEPTED.keys():
            fixed = ", ".join(each.get("fixed_in", ())) or "no version"
            found(f"it is vulnerable: {', '.join(sorted(names))}, fixed in {fixed}", str(package))


def check_package(index: Index, found: Record, unknown: Record, package: Locked) -> None:
    """Check files and vulnerabilities of one package."""
    file_check = partial(check_files, index, package, found)
    vulnerability_check = partial(check_vulnerabilities, index, package, found, unknown)
    for check in (file_check, vulnerability_check):
        try:
            check()
        except (requests.RequestException, LookupError, TypeError, ValueError, AttributeError) as error:
            unknown(f"the index returned no valid response ({type(error).__name__})", str(package))


def main() -> int:
    """Audit, print the findings, and return the exit code."""
    # The default is the index from which pip installs, according to its configuration.
    pip, _ = create_command("install").parse_args([])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent.parent, metavar="FOLDER")
    parser.add_argument("--index", default=pip.index_url, help="URL of the index (default: that of pip)")
    options = parser.parse_args()

    findings: defaultdict[str, set[str]] = defaultdict(set)
    unchecked: defaultdict[str, set[str]] = defaultdict(set)

    def found(problem: str, package: str) -> None:
        findings[problem].add(package)

    def unknown(problem: str, package: str) -> None:
        unchecked[problem].add(package)

    project = tomllib.loads((options.folder / "pyproject.toml").read_text("utf-8"))["project"]
    packages: set[Locked] = set()
    for name, extras in LOCKS.items():
        locked = list(read(options.folder / name, found))
        wanted = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
        check_requirements(locked, [Requirement(each) for some in wanted for each in some], found, unknown)
        packages.update(locked)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(check_package, Index(options.index, pip.cert), found, unknown), packages))

    for problem, affected in sorted(unchecked.items()):
        print(f"not audited: {problem}: {', '.join(sorted(affected))}")
    for problem, affected in sorted(findings.items()):
        print(f"FOUND: {problem}: {', '.join(sorted(affected))}")
    print(f"{len(packages)} packages, {len(findings)} findings, {len(unchecked)} checks not made")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
