#!/usr/bin/python3
"""A GStreamer webrtcbin publisher over WHIP, run by Debian's own python3 (its bindings are not on PyPI).

Usage: gst_publish.py URL [seconds] [vp8|h264] [token]. Prints `connected` when DTLS is up and ends by itself.
Its DTLS certificate is RSA, which is why it is here.
"""

import sys
import urllib.error
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

ENCODERS = {
    "vp8": "vp8enc deadline=1 target-bitrate=500000 keyframe-max-dist=60 ! rtpvp8pay pt=96 "
    "! application/x-rtp,media=video,encoding-name=VP8,payload=96",
    "h264": "x264enc tune=zerolatency bitrate=500 key-int-max=60 ! video/x-h264,profile=constrained-baseline "
    "! rtph264pay pt=96 config-interval=-1 ! application/x-rtp,media=video,encoding-name=H264,payload=96",
}


class Publisher:
    """One pipeline, one session."""

    def __init__(self, url, codec, token):
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.parse_launch(
            "webrtcbin name=peer bundle-policy=max-bundle "
            f"videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 ! {ENCODERS[codec]} ! peer. "
            "audiotestsrc is-live=true wave=sine ! opusenc ! rtpopuspay pt=111 "
            "! application/x-rtp,media=audio,encoding-name=OPUS,payload=111 ! peer."
        )
        self.peer = self.pipeline.get_by_name("peer")
        self.peer.connect("on-negotiation-needed", self.offer)
        self.peer.connect("notify::ice-gathering-state", self.gathered)
        self.peer.connect("notify::connection-state", self.state)
        self.resource = None
        self.failed = None

    def offer(self, _peer):
        self.peer.emit("create-offer", None, Gst.Promise.new_with_change_func(self.offered))

    def offered(self, promise):
        # The offer points into the reply, which must outlive it.
        reply = promise.get_reply()
        offer = reply.get_value("offer")
        self.peer.emit("set-local-description", offer, Gst.Promise.new())

    def gathered(self, _peer, _property):
        if self.peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            GLib.idle_add(self.post)

    def post(self):
        if self.resource is not None:
            return False
        offer = self.peer.get_property("local-description").sdp.as_text().encode()
        headers = {"Content-Type": "application/sdp", **self.headers}
        request = urllib.request.Request(self.url, offer, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                self.resource = urllib.parse.urljoin(self.url, response.headers["Location"])
                answer = response.read()
        except urllib.error.HTTPError as error:
            self.failed = f"{error.code} {error.read().decode()}"
            self.loop.quit()
            return False
        _, message = GstSdp.SDPMessage.new()
        GstSdp.sdp_message_parse_buffer(answer, message)
        described = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        self.peer.emit("set-remote-description", described, Gst.Promise.new())
        return False

    def state(self, _peer, _property):
        state = self.peer.get_property("connection-state")
        if state == GstWebRTC.WebRTCPeerConnectionState.CONNECTED:
            print("connected", flush=True)
        elif state == GstWebRTC.WebRTCPeerConnectionState.FAILED:
            self.failed = "the connection failed"
            self.loop.quit()

    def run(self, seconds):
        self.pipeline.set_state(Gst.State.PLAYING)
        GLib.timeout_add_seconds(seconds, self.loop.quit)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        if self.resource:
            request = urllib.request.Request(self.resource, headers=self.headers, method="DELETE")
            urllib.request.urlopen(request, timeout=5).close()
        if self.failed:
            sys.exit(self.failed)


if __name__ == "__main__":
    Gst.init(None)
    url, seconds, codec, token = (sys.argv[1:] + ["10", "vp8", ""][len(sys.argv) - 2 :])[:4]
    Publisher(url, codec, token).run(int(seconds))
