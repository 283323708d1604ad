// One pion client, a WHIP publisher or a WHEP viewer, with pion's default media engine and interceptors. It tells what
// happens as JSON lines on standard output, and must never know what a test expects or how the relay works.
// Read next: publish.go and watch.go, the two halves; `client_process.py` in the folder above is the other end.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/pion/webrtc/v4"
)

// Between two counts that are told of each stream.
const tellEvery = 100 * time.Millisecond

type options struct {
	url     string
	slot    int
	video   string
	audio   string
	trickle bool
	restart time.Duration
}

func main() {
	var chosen options
	flag.StringVar(&chosen.url, "url", "", "the WHIP or WHEP endpoint of a room")
	flag.IntVar(&chosen.slot, "slot", -1, "offer again until this worker takes it; -1 takes any")
	flag.StringVar(&chosen.video, "video", "", "an IVF or H264 Annex B file: sent, or what is expected")
	flag.StringVar(&chosen.audio, "audio", "", "an Ogg file of Opus with one packet a page: sent, or what is expected")
	flag.BoolVar(&chosen.trickle, "trickle", false, "offer without candidates and PATCH them afterwards")
	flag.DurationVar(&chosen.restart, "restart", 0, "restart ICE so long after the connection; 0 is never")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var err error
	switch flag.Arg(0) {
	case "publish":
		err = run(ctx, chosen, publish)
	case "watch":
		err = run(ctx, chosen, watch)
	default:
		err = fmt.Errorf("usage: pion [flags] publish|watch")
	}
	if err != nil {
		say("failed", told{"error": err.Error()})
		os.Exit(1)
	}
}

// Opens a session whose tracks prepare adds, and ends it with DELETE when the context is over.
func run(
	ctx context.Context, chosen options, prepare func(context.Context, *webrtc.PeerConnection, options) error,
) error {
	connection, err := webrtc.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	connected, failed := make(chan struct{}), make(chan struct{})
	var connectedOnce, failedOnce sync.Once
	connection.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		say("state", told{"state": state.String()})
		switch state {
		case webrtc.PeerConnectionStateConnected:
			connectedOnce.Do(func() { close(connected) })
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			failedOnce.Do(func() { close(failed) })
		default:
		}
	})
	media, stopMedia := context.WithCancel(ctx)
	defer stopMedia()
	if err = prepare(media, connection, chosen); err != nil {
		return err
	}
	resource := &session{url: chosen.url}
	if err = resource.open(ctx, connection, chosen); err != nil {
		resource.end()
		return err
	}
	defer resource.end()
	select {
	case <-connected:
		say("connected", told{})
	case <-failed:
		return fmt.Errorf("the connection failed")
	case <-ctx.Done():
		return nil
	}
	if chosen.restart > 0 {
		select {
		case <-time.After(chosen.restart):
		case <-ctx.Done():
			return nil
		}
		if err = resource.restart(connection); err != nil {
			return err
		}
		say("restarted", told{})
	}
	select {
	case <-failed:
		return fmt.Errorf("the connection failed")
	case <-ctx.Done():
		return nil
	}
}

type told map[string]any

var saying sync.Mutex

// One JSON line.
func say(event string, values told) {
	values["event"] = event
	line, err := json.Marshal(values)
	if err != nil {
		panic(err)
	}
	saying.Lock()
	defer saying.Unlock()
	fmt.Println(string(line))
}
