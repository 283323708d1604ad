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


async def test_the_player_of_each_room_may_be_framed_by_the_sites_that_are_named_and_nothing_else_may(
    site: Site,
) -> None:
    async with site.client.get(f"{site.url}/watch/hall") as answer:
        assert answer.status == 200
        assert "player" in await answer.text()
        assert answer.headers["Content-Security-Policy"].endswith("; frame-ancestors 'self' https://site.example")
        etag = answer.headers["ETag"]
    async with site.client.get(f"{site.url}/watch/hall", headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304
        assert answer.headers["Content-Security-Policy"].endswith("https://site.example")
    for path in ("/", "/index.html", "/parts/app.js"):
        async with site.client.get(site.url + path) as answer:
            assert answer.headers["Content-Security-Policy"].endswith("; frame-ancestors 'none'")


async def test_the_player_is_at_one_address_from_which_its_files_are_found(site: Site) -> None:
    async with site.client.get(f"{site.url}/watch/hall/") as answer:
        assert answer.status == 200
        assert answer.url.path == "/watch/hall"
    for path in ("/watch", "/watch.html", "/watch/hall/app.js"):
        async with site.client.get(site.url + path) as answer:
            assert answer.status == 404
