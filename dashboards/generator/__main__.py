"""Writes the dashboards."""

from dashboards.generator import boards

if __name__ == "__main__":
    for path, board in boards():
        path.write_text(board.json(), "utf-8")
