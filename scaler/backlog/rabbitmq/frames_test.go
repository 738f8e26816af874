package rabbitmq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// frame packs a payload.
func frame(kind byte, channel uint16, payload ...[]byte) []byte {
	all := bytes.Join(payload, nil)
	packed := append([]byte{kind}, number(channel)...)
	return append(append(binary.BigEndian.AppendUint32(packed, uint32(len(all))), all...), 0xCE)
}

// endless is a long string that says that it has 2 GiB, and has nothing.
func endless() []byte { return binary.BigEndian.AppendUint32(nil, math.MaxInt32) }

// Whatever a policy's author names as a broker, and whatever that sends, costs an error and neither the scaler's memory nor its processors.
func TestHostileFrames(t *testing.T) {
	say := func(frames ...[]byte) func(*wire) bool {
		return func(w *wire) bool {
			for _, f := range frames {
				if _, err := w.Write(f); err != nil {
					return false
				}
			}
			for { // and whatever it waits for after that
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return false
				}
			}
		}
	}
	nested := func(depth int) []byte {
		table := long("")
		for range depth {
			table = long(string(short("k")) + "F" + string(table))
		}
		return table
	}
	start := []byte{0, 10, 0, 10, 0, 9}
	got := append(number(60), number(71)...)
	got = append(got, make([]byte, 9)...)
	got = append(append(append(got, short("")...), short("")...), 0, 0, 0, 0)
	message := func(size uint64, flags uint16, rest ...[]byte) []byte {
		return frame(frameHeader, 1, number(60), number(0), binary.BigEndian.AppendUint64(nil, size), number(flags), bytes.Join(rest, nil))
	}
	for name, b := range map[string]*brokenBroker{
		"properties of 2 GiB":  {hello: say(frame(frameMethod, 0, start, endless()))},
		"a property of 2 GiB":  {hello: say(frame(frameMethod, 0, start, long(string(short("k"))+"S"+string(endless())), long("PLAIN"), long("en_US")))},
		"bytes of 2 GiB":       {hello: say(frame(frameMethod, 0, start, long(string(short("k"))+"x"+string(endless())), long("PLAIN"), long("en_US")))},
		"tables in tables":     {hello: say(frame(frameMethod, 0, start, nested(500), long("PLAIN"), long("en_US")))},
		"mechanisms of 2 GiB":  {hello: say(frame(frameMethod, 0, start, long(""), endless()))},
		"a frame of 4 GiB":     {hello: say([]byte{frameMethod, 0, 0, 0xff, 0xff, 0xff, 0xff})},
		"not AMQP":             {hello: say([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))},
		"a challenge of 2 GiB": {login: say(frame(frameMethod, 0, number(10), number(20), endless()))},
		"another's method":     {login: say(frame(frameMethod, 0, number(50), number(10), number(0), short("q"), []byte{0}, endless()))},
		"a channel's 2 GiB":    {opened: say(frame(frameMethod, 1, number(20), number(11), endless()))},
		"a message of 8 EiB":   {get: func(w *wire, _ uint16, _ string) bool { return say(frame(frameMethod, 1, got), message(1<<63, 0))(w) }},
		"a message's headers": {get: func(w *wire, _ uint16, _ string) bool {
			return say(frame(frameMethod, 1, got), message(1, 1<<13, endless()))(w)
		}},
		"bodies without a head": {get: func(w *wire, _ uint16, _ string) bool {
			return say(bytes.Repeat(frame(frameBody, 1, make([]byte, 1<<16)), 64))(w)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b.declare = func(w *wire, channel uint16, queue string) bool { w.answer(channel, queue, 0, 0); return true }
			source := open(t, NewBrokers(limits(2*time.Second)), Config{Identity: at("amqp://u:s3cret@" + b.start(t)), Queues: []string{"q"}})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := source.Observe(t.Context(), 0)
			runtime.ReadMemStats(&after)
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error %v", err)
			}
			if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 32 {
				t.Errorf("%d MiB are allocated", used)
			}
		})
	}
}

// Frames that nobody asked for are read slowly.
func TestFramesArePaced(t *testing.T) {
	var sent atomic.Int64
	beats := bytes.Repeat(frame(frameHeartbeat, 0), 1000)
	b := &brokenBroker{opened: func(w *wire) bool {
		go func() {
			for {
				if _, err := w.Write(beats); err != nil {
					return
				}
				sent.Add(1000)
			}
		}()
		return true
	}}
	source := open(t, NewBrokers(limits(time.Minute)), Config{Identity: at("amqp://u:p@" + b.start(t)), Queues: []string{"q"}})
	go func() { _, _ = source.Observe(t.Context(), 0) }() // it is answered late, or never
	// When the kernel holds as much of what was sent as it takes, more is sent as fast as it is read.
	eventually(t, func() error {
		if sent.Load() == 0 {
			return errors.New("nothing is sent yet")
		}
		before, began := sent.Load(), time.Now()
		time.Sleep(time.Second)
		if perSecond := float64(sent.Load()-before) / time.Since(began).Seconds(); perSecond > 4*framesPerSecond {
			return fmt.Errorf("%.0f frames are read a second", perSecond)
		}
		return nil
	})
}

// What a real broker sends is passed on, in whichever pieces it is read.
func TestFrames(t *testing.T) {
	table := long(string(short("capabilities")) + "F" + string(long(string(short("a"))+"t\x01"+string(short("b"))+"S"+string(long("text")))) +
		string(short("list")) + "A" + string(long("I\x00\x00\x00\x01V")) + string(short("n")) + "D\x01\x00\x00\x00\x02" +
		string(short("t")) + "T\x00\x00\x00\x00\x00\x00\x00\x01" + string(short("u")) + "u\x00\x01" + string(short("x")) + "x" + string(long("raw")))
	sent := bytes.Join([][]byte{
		frame(frameMethod, 0, number(10), number(10), []byte{0, 9}, table, long("PLAIN"), long("en_US")),
		frame(frameHeartbeat, 0),
		frame(frameHeader, 1, number(60), number(0), binary.BigEndian.AppendUint64(nil, 2), number(1<<15|1<<14|1<<13|1<<12), short("a"), short("b"), table, []byte{2}),
		frame(frameBody, 1, []byte("ab")),
		frame(frameMethod, 1, number(60), number(72), short("")),
	}, nil)
	for _, piece := range []int{1, 7, 4096} {
		f := newFrames(nil)
		f.from.Reset(bytes.NewReader(sent))
		var got []byte
		for p := make([]byte, piece); ; {
			n, err := f.Read(p)
			if got = append(got, p[:n]...); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("in pieces of %d: %d bytes, want %d", piece, len(got), len(sent))
		}
	}
}
