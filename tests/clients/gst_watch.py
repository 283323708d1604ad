#!/usr/bin/python3
"""A GStreamer webrtcbin viewer over WHEP, run by Debian's own python3 (its bindings are not on PyPI).

Usage: gst_watch.py URL PICTURES vp8|h264 TOKEN, which may be empty. Ends by itself once it has so many pictures and as
many packets of sound (Opus): decoded, but for H264, whose pictures are put together from their packets.
"""

import sys
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

# The caps that everybody passes on, which say nothing of packetization-mode or profile-level-id.
PICTURE = {
    "vp8": "application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000,rtcp-fb-nack-pli=true",
    "h264": "application/x-rtp,media=video,encoding-name=H264,payload=103,clock-rate=90000,rtcp-fb-nack-pli=true",
}
SOUND = "application/x-rtp,media=audio,encoding-name=OPUS,payload=111,clock-rate=48000,encoding-params=(string)2"
DECODERS = {
    "vp8": "queue ! rtpvp8depay ! vp8dec",
    "h264": "queue ! rtph264depay ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au",
    "audio": "queue ! rtpopusdepay ! opusdec",
}
SINK = "fakesink name=sink sync=false async=false signal-handoffs=true"
MAX_BUNDLE = 3


class Viewer:
    """One pipeline, one session."""

    def __init__(self, url, pictures, codec, token):
        self.url, self.pictures, self.codec = url, pictures, codec
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.decoded = {"video": 0, "audio": 0}
        self.posted = False
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.Pipeline()
        self.peer = Gst.ElementFactory.make("webrtcbin")
        self.peer.set_property("bundle-policy", MAX_BUNDLE)
        self.pipeline.add(self.peer)
        for caps in (PICTURE[codec], SOUND):
            direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
            self.peer.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
        self.peer.connect("pad-added", self.receive)
        self.peer.connect("on-negotiation-needed", self.offer)
        self.peer.connect("notify::ice-gathering-state", self.gathered)

    def receive(self, _peer, pad):
        kind = pad.get_current_caps().get_structure(0).get_string("media")
        name = self.codec if kind == "video" else kind
        decoder = Gst.parse_bin_from_description(f"{DECODERS[name]} ! {SINK}", True)
        decoder.get_by_name("sink").connect("handoff", self.count, kind)
        self.pipeline.add(decoder)
        decoder.sync_state_with_parent()
        pad.link(decoder.get_static_pad("sink"))

    def count(self, _sink, _buffer, _pad, kind):
        self.decoded[kind] += 1
        if min(self.decoded.values()) >= self.pictures:
            self.loop.quit()

    def offer(self, _peer):
        self.peer.emit("create-offer", None, Gst.Promise.new_with_change_func(self.offered))

    def offered(self, promise):
        # The offer points into the reply, which must outlive it.
        reply = promise.get_reply()
        self.peer.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())

    def gathered(self, _peer, _property):
        if self.peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            GLib.idle_add(self.post)

    def post(self):
        if self.posted:
            return False
        self.posted = True
        offer = self.peer.get_property("local-description").sdp.as_text().encode()
        headers = {"Content-Type": "application/sdp", **self.headers}
        with urllib.request.urlopen(urllib.request.Request(self.url, offer, headers), timeout=10) as response:
            answer = response.read()
        _, message = GstSdp.SDPMessage.new()
        GstSdp.sdp_message_parse_buffer(answer, message)
        described = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        self.peer.emit("set-remote-description", described, Gst.Promise.new())
        return False

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        print(self.decoded)


if __name__ == "__main__":
    Gst.init(None)
    url, pictures, codec, token = sys.argv[1:]
    Viewer(url, int(pictures), codec, token).run()
