package main

// What lies in the files: whole frames, as they are sent and as they are looked for among what is received. It must
// never know of RTP. Read next: publish.go, which sends them.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media/h264reader"
	"github.com/pion/webrtc/v4/pkg/media/ivfreader"
	"github.com/pion/webrtc/v4/pkg/media/oggreader"
)

var startCode = []byte{0, 0, 0, 1}

// Returns a file's codec and frames; H264's are Annex B with four-byte start codes, without delimiters and SEI.
func readFrames(path string) (string, [][]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", nil, err
	}
	switch {
	case strings.HasSuffix(path, ".ogg"):
		frames, err := readOgg(content)
		return webrtc.MimeTypeOpus, frames, err
	case strings.HasSuffix(path, ".h264"):
		frames, err := readAnnexB(content)
		return webrtc.MimeTypeH264, frames, err
	case strings.HasSuffix(path, ".ivf"):
		return readIVF(content)
	}
	return "", nil, fmt.Errorf("%s is no .ogg, .h264 or .ivf", path)
}

func readIVF(content []byte) (string, [][]byte, error) {
	reader, header, err := ivfreader.NewWith(bytes.NewReader(content))
	if err != nil {
		return "", nil, err
	}
	codec, found := map[string]string{"VP80": webrtc.MimeTypeVP8, "VP90": webrtc.MimeTypeVP9}[header.FourCC]
	if !found {
		return "", nil, fmt.Errorf("an IVF file of %s", header.FourCC)
	}
	var frames [][]byte
	for {
		frame, _, err := reader.ParseNextFrame()
		if errors.Is(err, io.EOF) {
			return codec, frames, nil
		}
		if err != nil {
			return "", nil, err
		}
		frames = append(frames, frame)
	}
}

func readAnnexB(content []byte) ([][]byte, error) {
	reader, err := h264reader.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	var frames [][]byte
	for {
		unit, err := reader.NextNAL()
		if errors.Is(err, io.EOF) {
			return frames, nil
		}
		if err != nil {
			return nil, err
		}
		// Each picture begins with a delimiter, which nobody sends.
		if unit.UnitType == h264reader.NalUnitTypeAUD {
			frames = append(frames, nil)
			continue
		}
		last := len(frames) - 1
		frames[last] = append(append(frames[last], startCode...), unit.Data...)
	}
}

func readOgg(content []byte) ([][]byte, error) {
	reader, _, err := oggreader.NewWith(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	var frames [][]byte
	for {
		page, header, err := reader.ParseNextPage()
		if errors.Is(err, io.EOF) {
			return frames, nil
		}
		if err != nil {
			return nil, err
		}
		if _, isHeader := header.HeaderType(page); !isHeader {
			frames = append(frames, page)
		}
	}
}
