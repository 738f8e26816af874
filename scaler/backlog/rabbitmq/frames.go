package rabbitmq

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/time/rate"
)

const (
	// maxFrame bounds a frame, in bytes: it is what RabbitMQ allows where nobody configures it, and what is asked of it.
	maxFrame = 128 << 10
	// maxBody bounds a message. None is wanted: one may come to a queue that is asked whether it is empty.
	maxBody = 4 << 20
	// maxDepth bounds tables in tables.
	maxDepth = 32
	// framesPerSecond bounds how many frames are read of a connection: more than a broker answers in a second.
	framesPerSecond = 20_000
)

// Kinds of frames, and what is around a payload.
const (
	frameMethod, frameHeader, frameBody, frameHeartbeat = 1, 2, 3, 8
	frameStart, frameEnd                                = 7, 1
)

var errNoBroker = errors.New("it sends what no broker sends")

// frames is a connection of which the client library reads nothing that was not looked at. A broker is whoever a policy's author names, and the
// library allocates what a length says before anything of it has come, up to gigabytes for a string.
type frames struct {
	net.Conn
	from *bufio.Reader
	pace *rate.Limiter
	// frame is what is left to read of the one that was looked at, which is in buffer.
	frame, buffer []byte
	err           error // why there is no other one
}

func newFrames(conn net.Conn) *frames {
	return &frames{Conn: conn, from: bufio.NewReader(conn), pace: rate.NewLimiter(framesPerSecond, framesPerSecond), buffer: make([]byte, 512)}
}

// Read implements net.Conn.
func (f *frames) Read(p []byte) (int, error) {
	if len(f.frame) == 0 {
		if f.err == nil {
			f.err = f.next()
		}
		if len(f.frame) == 0 {
			return 0, f.err
		}
	}
	n := copy(p, f.frame)
	f.frame = f.frame[n:]
	return n, nil
}

// next reads a frame. One that is none of AMQP's comes with an error, for the library to say so.
func (f *frames) next() error {
	if err := f.pace.Wait(context.Background()); err != nil {
		return err
	}
	start := f.buffer[:frameStart]
	if _, err := io.ReadFull(f.from, start); err != nil {
		return err
	}
	kind, size := start[0], binary.BigEndian.Uint32(start[3:])
	if kind != frameMethod && kind != frameHeader && kind != frameBody && kind != frameHeartbeat {
		f.frame = start
		return errNoBroker
	}
	if size > maxFrame {
		return fmt.Errorf("%w: a frame of %d bytes", errNoBroker, size)
	}
	whole := frameStart + int(size) + frameEnd
	if whole > len(f.buffer) {
		f.buffer = append(make([]byte, 0, whole), start...)[:whole]
	}
	if _, err := io.ReadFull(f.from, f.buffer[frameStart:whole]); err != nil {
		return err
	}
	payload := f.buffer[frameStart : whole-frameEnd]
	switch {
	case kind == frameMethod && !checkMethod(payload), kind == frameHeader && !checkHeader(payload):
		return errNoBroker
	case kind == frameHeader && binary.BigEndian.Uint64(payload[4:]) > maxBody:
		return fmt.Errorf("a message came of more than %d MiB, though none was waiting", maxBody>>20)
	}
	f.frame = f.buffer[:whole]
	return nil
}

// checkMethod reports whether a method is one that a broker sends to a client that asks what the scaler asks, and is as long as it says.
func checkMethod(payload []byte) bool {
	c := cursor{rest: payload}
	class, method := c.take(2), c.take(2)
	if c.failed {
		return false
	}
	const connection, channel, queue, basic = 10, 20, 50, 60
	switch [2]uint16{binary.BigEndian.Uint16(class), binary.BigEndian.Uint16(method)} {
	case [2]uint16{connection, 10}: // start: version, properties, mechanisms, locales
		c.take(2)
		c.table(0)
		c.long()
		c.long()
	case [2]uint16{connection, 20}, [2]uint16{channel, 11}: // secure, open-ok
		c.long()
	case [2]uint16{connection, 30}, [2]uint16{connection, 41}, [2]uint16{connection, 50}, [2]uint16{connection, 51}, [2]uint16{connection, 60},
		[2]uint16{connection, 61}, [2]uint16{connection, 71}, [2]uint16{channel, 20}, [2]uint16{channel, 21}, [2]uint16{channel, 40},
		[2]uint16{channel, 41}, [2]uint16{queue, 11}, [2]uint16{basic, 71}, [2]uint16{basic, 72}:
		// They hold numbers, and strings of up to 255 bytes.
	default:
		return false
	}
	return !c.failed
}

// checkHeader reports whether the header of a message is as long as it says: class, weight, size, flags, and the properties that they tell of.
func checkHeader(payload []byte) bool {
	c := cursor{rest: payload}
	c.take(2 + 2 + 8)
	flags := c.take(2)
	if c.failed {
		return false
	}
	const contentType, encoding, headers = 1 << 15, 1 << 14, 1 << 13
	has := binary.BigEndian.Uint16(flags)
	for _, property := range []uint16{contentType, encoding} {
		if has&property != 0 {
			c.short()
		}
	}
	if has&headers != 0 {
		c.table(0)
	}
	return !c.failed // what follows are numbers and short strings
}

// cursor goes through what AMQP packs. When it has failed it stays where it is.
type cursor struct {
	rest   []byte
	failed bool
}

func (c *cursor) take(n int) []byte {
	if c.failed || n > len(c.rest) {
		c.failed = true
		return nil
	}
	taken := c.rest[:n]
	c.rest = c.rest[n:]
	return taken
}

func (c *cursor) short() {
	if length := c.take(1); !c.failed {
		c.take(int(length[0]))
	}
}

func (c *cursor) long() []byte {
	length := c.take(4)
	if c.failed {
		return nil
	}
	return c.take(int(binary.BigEndian.Uint32(length)))
}

func (c *cursor) table(depth int) {
	fields := cursor{rest: c.long()}
	for len(fields.rest) > 0 && !fields.failed {
		fields.short()
		fields.field(depth)
	}
	c.failed = c.failed || fields.failed
}

func (c *cursor) field(depth int) {
	kind := c.take(1)
	if c.failed || depth > maxDepth {
		c.failed = true
		return
	}
	switch kind[0] {
	case 't', 'B', 'b':
		c.take(1)
	case 's', 'u':
		c.take(2)
	case 'I', 'i', 'f':
		c.take(4)
	case 'D':
		c.take(5)
	case 'l', 'd', 'T':
		c.take(8)
	case 'S', 'x':
		c.long()
	case 'A':
		items := cursor{rest: c.long()}
		for len(items.rest) > 0 && !items.failed {
			items.field(depth + 1)
		}
		c.failed = c.failed || items.failed
	case 'F':
		c.table(depth + 1)
	case 'V':
	default:
		c.failed = true
	}
}
