from pathlib import Path

import pytest

from tests.security.web_files import WebFiles


@pytest.fixture
def web(tmp_path: Path) -> WebFiles:
    return WebFiles(tmp_path)
