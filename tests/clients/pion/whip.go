package main

// The HTTP side of one session: POST, PATCH, DELETE (RFC 9725). It must never know which way media goes.
// Read next: `workers/http/public.py`, the other end.

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"
)

// The kernel chooses a worker by a connection's ports, so so many connections reach each.
const maxPosts = 100

var ufragLine, pwdLine = regexp.MustCompile(`a=ice-ufrag:\S+`), regexp.MustCompile(`a=ice-pwd:\S+`)

var client = &http.Client{
	Timeout: 30 * time.Second,
	// A connection of its own for each request: so a request may reach any worker.
	Transport: &http.Transport{DisableKeepAlives: true},
}

type session struct {
	url      string
	resource string

	// Held while candidates are sent, which wait for the session's URL.
	lock sync.Mutex
	etag string
}

// Offers, and applies the answer.
func (s *session) open(ctx context.Context, connection *webrtc.PeerConnection, chosen options) error {
	gathered := webrtc.GatheringCompletePromise(connection)
	if chosen.trickle {
		connection.OnICECandidate(func(candidate *webrtc.ICECandidate) { s.trickle(connection, candidate) })
	}
	offer, err := connection.CreateOffer(nil)
	if err != nil {
		return err
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	if err = connection.SetLocalDescription(offer); err != nil {
		return err
	}
	if !chosen.trickle {
		<-gathered
		offer = *connection.LocalDescription()
	}
	answer, err := s.post(ctx, offer.SDP, chosen.slot)
	if err != nil {
		return err
	}
	say("answered", told{"session": s.resource, "offer": offer.SDP, "answer": answer})
	return connection.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer})
}

func (s *session) post(ctx context.Context, offer string, slot int) (string, error) {
	for range maxPosts {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		status, headers, answer, err := request("POST", s.url, "application/sdp", "", offer)
		if err != nil {
			return "", err
		}
		if status != http.StatusCreated {
			return "", fmt.Errorf("POST: %d %s", status, answer)
		}
		base, err := url.Parse(s.url)
		if err != nil {
			return "", err
		}
		location, err := base.Parse(headers.Get("Location"))
		if err != nil {
			return "", err
		}
		s.resource, s.etag = location.String(), headers.Get("ETag")
		id := s.resource[strings.LastIndex(s.resource, "/")+1:]
		taken, err := strconv.ParseInt(id[:2], 16, 32)
		if err != nil {
			return "", err
		}
		if slot < 0 || int(taken) == slot {
			return answer, nil
		}
		s.end()
	}
	return "", fmt.Errorf("no POST of %d went to worker %d", maxPosts, slot)
}

// PATCHes one candidate, or that there are no more.
func (s *session) trickle(connection *webrtc.PeerConnection, candidate *webrtc.ICECandidate) {
	s.lock.Lock()
	defer s.lock.Unlock()
	lines := []string{}
	if candidate == nil {
		lines = append(lines, "a=end-of-candidates")
	} else {
		lines = append(lines, "a="+candidate.ToJSON().Candidate)
	}
	status, _, body, err := s.patch(fragment(connection.LocalDescription().SDP, lines), s.etag)
	if err != nil {
		say("patched", told{"error": err.Error()})
		return
	}
	say("patched", told{"status": status, "body": body, "lines": lines})
}

// An ICE restart: new credentials and all candidates in one PATCH, the answer's with the relay's new ones.
func (s *session) restart(connection *webrtc.PeerConnection) error {
	// They are all in one PATCH.
	connection.OnICECandidate(func(*webrtc.ICECandidate) {})
	gathered := webrtc.GatheringCompletePromise(connection)
	offer, err := connection.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		return err
	}
	before := connection.RemoteDescription().SDP
	if err = connection.SetLocalDescription(offer); err != nil {
		return err
	}
	<-gathered
	offer = *connection.LocalDescription()
	lines := []string{}
	for line := range strings.SplitSeq(offer.SDP, "\r\n") {
		if strings.HasPrefix(line, "a=candidate:") {
			lines = append(lines, line)
		}
		if line == "a=end-of-candidates" {
			lines = append(lines, line)
			break
		}
	}
	status, headers, body, err := s.patch(fragment(offer.SDP, lines), "*")
	if err != nil {
		return err
	}
	say("patched", told{"status": status, "body": body})
	if status != http.StatusOK {
		return fmt.Errorf("PATCH: %d %s", status, body)
	}
	s.etag = headers.Get("ETag")
	answer := ufragLine.ReplaceAllString(before, ufragLine.FindString(body))
	answer = pwdLine.ReplaceAllString(answer, pwdLine.FindString(body))
	return connection.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer})
}

// Tells how DELETE was answered.
func (s *session) end() {
	if s.resource == "" {
		return
	}
	status, _, body, err := request("DELETE", s.resource, "", "", "")
	if err != nil {
		body = err.Error()
	}
	say("ended", told{"status": status, "body": body})
	s.resource = ""
}

func (s *session) patch(body, ifMatch string) (int, http.Header, string, error) {
	return request("PATCH", s.resource, "application/trickle-ice-sdpfrag", ifMatch, body)
}

// A trickle-ice-sdpfrag (RFC 8840) of the first m-line, which the others are bundled with.
func fragment(offer string, lines []string) string {
	media := regexp.MustCompile(`m=[^\r]+`).FindString(offer)
	mid := regexp.MustCompile(`a=mid:\S+`).FindString(offer)
	head := []string{ufragLine.FindString(offer), pwdLine.FindString(offer), media, mid}
	return strings.Join(append(head, lines...), "\r\n") + "\r\n"
}

func request(method, url, kind, ifMatch, body string) (int, http.Header, string, error) {
	asked, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	if kind != "" {
		asked.Header.Set("Content-Type", kind)
	}
	if ifMatch != "" {
		asked.Header.Set("If-Match", ifMatch)
	}
	answered, err := client.Do(asked)
	if err != nil {
		return 0, nil, "", err
	}
	defer func() { _ = answered.Body.Close() }()
	text, err := io.ReadAll(answered.Body)
	return answered.StatusCode, answered.Header, string(text), err
}
