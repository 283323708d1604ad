"""The page and its files."""

from tests.unit.workers.http.http_kit import Site


async def test_the_page_is_served_with_a_strict_policy_and_from_the_browsers_cache(site: Site) -> None:
    async with site.client.get(f"{site.url}/") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        etag = answer.headers["ETag"]
    async with site.client.get(f"{site.url}/", headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304
    async with site.client.get(f"{site.url}/parts/app.js") as answer:
        assert answer.headers["Content-Type"].startswith("text/javascript")
    async with site.client.head(f"{site.url}/index.html") as answer:
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) > 0
    async with site.client.post(f"{site.url}/") as answer:
        assert answer.status == 405
