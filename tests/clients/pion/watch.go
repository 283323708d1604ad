package main

// Counts what is received, and holds each whole frame against those of a file. It must never know who sends.
// Read next: frames.go, which reads the file.

import (
	"context"
	"fmt"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
)

// Asks for a picture and a sound, and counts them.
func watch(ctx context.Context, connection *webrtc.PeerConnection, chosen options) error {
	expected := map[string]map[string]bool{}
	for kind, path := range map[string]string{"video": chosen.video, "audio": chosen.audio} {
		if path == "" {
			continue
		}
		_, frames, err := readFrames(path)
		if err != nil {
			return err
		}
		expected[kind] = map[string]bool{}
		for _, frame := range frames {
			expected[kind][string(frame)] = true
		}
	}
	direction := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
		if _, err := connection.AddTransceiverFromKind(kind, direction); err != nil {
			return err
		}
	}
	connection.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		say("track", told{"kind": track.Kind().String(), "codec": track.Codec().MimeType})
		if track.Kind() == webrtc.RTPCodecTypeVideo {
			// As a decoder does that begins.
			if err := connection.WriteRTCP([]rtcp.Packet{
				&rtcp.PictureLossIndication{MediaSSRC: uint32(track.SSRC())},
			}); err != nil {
				say("failed", told{"error": err.Error()})
			}
		}
		watching := &stream{kind: track.Kind().String(), codec: track.Codec().MimeType, missing: map[uint16]bool{}}
		watching.expected = expected[watching.kind]
		watching.depacketizer = depacketizer(watching.codec)
		for ctx.Err() == nil {
			packet, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			watching.take(packet)
		}
	})
	return nil
}

type stream struct {
	kind, codec  string
	expected     map[string]bool
	depacketizer rtp.Depacketizer

	packets, frames, keyFrames, like int
	begun                            bool
	highest                          uint16
	missing                          map[uint16]bool
	frame                            []byte
	isWhole                          bool
	toldAt                           time.Time
}

// Frames are whole only if their packets come in order; a repair that comes late closes a gap all the same.
func (s *stream) take(packet *rtp.Packet) {
	s.packets++
	isFirst := !s.begun
	inOrder := isFirst || packet.SequenceNumber == s.highest+1
	switch {
	case inOrder:
		s.highest = packet.SequenceNumber
	case packet.SequenceNumber-s.highest < 1<<15:
		for number := s.highest + 1; number != packet.SequenceNumber; number++ {
			s.missing[number] = true
		}
		s.highest = packet.SequenceNumber
	default:
		delete(s.missing, packet.SequenceNumber)
		return
	}
	if !inOrder {
		s.isWhole = false
	}
	s.begun = true
	if len(packet.Payload) > 0 {
		s.append(packet, isFirst)
	}
	if time.Since(s.toldAt) >= tellEvery {
		s.toldAt = time.Now()
		say("received", told{
			"kind": s.kind, "codec": s.codec, "packets": s.packets, "frames": s.frames, "key_frames": s.keyFrames,
			"like_file": s.like, "missing": len(s.missing),
		})
	}
}

func (s *stream) append(packet *rtp.Packet, isFirst bool) {
	// H264 says where a unit begins, not a picture: behind a gap, parameter sets of the picture may be missing.
	tellsPictures := s.codec != webrtc.MimeTypeH264 || (isFirst && beginsWithParameterSets(packet.Payload))
	if s.depacketizer.IsPartitionHead(packet.Payload) && tellsPictures && s.frame == nil {
		s.isWhole = true
	}
	part, err := s.depacketizer.Unmarshal(packet.Payload)
	if err != nil {
		say("malformed", told{"kind": s.kind, "error": err.Error(), "payload": fmt.Sprintf("%x", packet.Payload)})
		s.isWhole = false
	}
	s.frame = append(s.frame, part...)
	if !packet.Marker && s.kind == "video" {
		return
	}
	if s.isWhole {
		s.frames++
		if s.expected[string(s.frame)] {
			s.like++
		}
		if isKeyFrame(s.codec, s.frame) {
			s.keyFrames++
		}
	}
	if !s.isWhole {
		// Drops the fragments of a unit whose last one is missing.
		s.depacketizer = depacketizer(s.codec)
	}
	s.frame, s.isWhole = nil, true
}

func depacketizer(codec string) rtp.Depacketizer {
	switch codec {
	case webrtc.MimeTypeVP8:
		return &codecs.VP8Packet{}
	case webrtc.MimeTypeVP9:
		return &codecs.VP9Packet{}
	case webrtc.MimeTypeH264:
		return &codecs.H264Packet{}
	}
	return &codecs.OpusPacket{}
}

// A sequence parameter set (7), alone or first in an aggregation packet (24).
func beginsWithParameterSets(payload []byte) bool {
	if payload[0]&0x1f == 24 && len(payload) > 3 {
		return payload[3]&0x1f == 7
	}
	return payload[0]&0x1f == 7
}

// Told from a whole frame: RFC 6386 section 9.1, the VP9 bitstream specification section 6.2 for profiles 0 to 2, and
// an IDR slice for H264.
func isKeyFrame(codec string, frame []byte) bool {
	switch codec {
	case webrtc.MimeTypeVP8:
		return frame[0]&1 == 0
	case webrtc.MimeTypeVP9:
		return frame[0]&0x0c == 0
	case webrtc.MimeTypeH264:
		for at := 0; at+4 < len(frame); at++ {
			if string(frame[at:at+4]) == string(startCode) && frame[at+4]&0x1f == 5 {
				return true
			}
		}
	}
	return false
}
