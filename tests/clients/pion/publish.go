package main

// Sends files in real time, and begins a picture's file again when a key frame is asked for: only its first frame is
// one. It must never know how the session came about. Read next: watch.go, the other half.

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
)

const (
	pictureEvery = time.Second / 30
	soundEvery   = 20 * time.Millisecond
)

// Adds a track for each file; they begin at once, and what is sent before the connection stands is lost.
func publish(ctx context.Context, connection *webrtc.PeerConnection, chosen options) error {
	for _, file := range []struct {
		kind, path string
		every      time.Duration
	}{{"video", chosen.video, pictureEvery}, {"audio", chosen.audio, soundEvery}} {
		if file.path == "" {
			continue
		}
		codec, frames, err := readFrames(file.path)
		if err != nil {
			return err
		}
		track, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: codec}, file.kind, "pion")
		if err != nil {
			return err
		}
		sender, err := connection.AddTrack(track)
		if err != nil {
			return err
		}
		asked := &requests{}
		go asked.read(sender)
		go send(ctx, file.kind, track, frames, file.every, asked)
	}
	return nil
}

// What the relay asked of one track.
type requests struct {
	keyFrames atomic.Uint64
	repairs   atomic.Uint64
}

func (r *requests) read(sender *webrtc.RTPSender) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, packet := range packets {
			switch packet := packet.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				r.keyFrames.Add(1)
			case *rtcp.TransportLayerNack:
				for _, pair := range packet.Nacks {
					r.repairs.Add(uint64(len(pair.PacketList())))
				}
			}
		}
	}
}

func send(
	ctx context.Context, kind string, track *webrtc.TrackLocalStaticSample, frames [][]byte, every time.Duration,
	asked *requests,
) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	next, served, sent, toldAt := 0, uint64(0), 0, time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if wanted := asked.keyFrames.Load(); wanted != served {
			next, served = 0, wanted
		}
		if err := track.WriteSample(media.Sample{Data: frames[next], Duration: every}); err != nil {
			say("unsent", told{"kind": kind, "error": err.Error()})
			return
		}
		next = (next + 1) % len(frames)
		sent++
		if time.Since(toldAt) >= tellEvery {
			toldAt = time.Now()
			say("sent", told{
				"kind": kind, "frames": sent, "key_frame_requests": served, "repairs_asked": asked.repairs.Load(),
			})
		}
	}
}
