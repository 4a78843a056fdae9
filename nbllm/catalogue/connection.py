"""Connections to http addresses: what of an address people may see, where it may lead, and what is held to be cut.

Knows nothing of what is fetched.
"""

import http.client
import re
import urllib.parse
import urllib.request

from nbllm.errors import DownloadError

SECRET = re.compile(r"(?<=://)[^/?#]*@|[?#].*", re.DOTALL)  # what of an address may let somebody in


def shown(address: str) -> str:
    """An address as people may see it."""
    return SECRET.sub("", address)


class Redirects(urllib.request.HTTPRedirectHandler):
    """What lets us in at a host is no other's business, nor to be read on the way; and nothing leads out of http."""

    def redirect_request(self, request, response, code, message, headers, url):
        scheme, host = urllib.parse.urlsplit(url)[:2]
        before = urllib.parse.urlsplit(request.full_url)
        if scheme not in ("http", "https"):
            response.close()
            raise DownloadError(f"{shown(request.full_url)} leads to {scheme}, not http: fetch it with a browser")
        new = super().redirect_request(request, response, code, message, headers, url)
        if new and (host != before.netloc or before.scheme == "https" != scheme):
            new.remove_header("Authorization")
        return new


def opener(hold):
    """Opens http and https; hold is called with the socket of each connection, before anything is read from it."""

    def held(kind):
        class Held(kind):
            def connect(self):
                super().connect()
                hold(self.sock)

        return Held

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request):
            return self.do_open(held(http.client.HTTPConnection), request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request):
            return self.do_open(held(http.client.HTTPSConnection), request)

    return urllib.request.build_opener(Http, Https, Redirects)
