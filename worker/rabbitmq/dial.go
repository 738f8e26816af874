package rabbitmq

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/internal/tlsfiles"
)

// Dial connects to a broker, as a worker does.
func Dial(uri string) (*amqp.Connection, error) {
	return dial(uri, amqp.Config{Heartbeat: 10 * time.Second}, 0)
}

// dial connects to a broker. Within bounds the attempt; 0: the library does.
//
// A broker passes on what a producer has sent as it is. Some clients, Celery's among them, write large numbers in headers with type L, which brokers take
// for type l, as do all other clients. The library of this program knows no L, and would end the connection each time it gets such a message: it is
// made an l before the library sees it.
//
// For each table in a table the library copies what is inside, and for each array in an array it reads through one reader more. A message of 64 KB can hold 10,000
// of them, which cost a gigabyte of memory or many seconds, at each delivery, before the worker knows anything of the message. What is deeper than any
// producer means is passed on as bytes.
func dial(text string, config amqp.Config, within time.Duration) (*amqp.Connection, error) {
	uri, err := amqp.ParseURI(text)
	if err != nil {
		return nil, err
	}
	if within == 0 {
		within = 30 * time.Second
		if uri.ConnectionTimeout != 0 {
			within = time.Duration(uri.ConnectionTimeout) * time.Millisecond
		}
	}
	config.Dial = func(network, _ string) (net.Conn, error) {
		connection, err := amqp.DefaultDial(within)(network, net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port)))
		if err != nil {
			return nil, err
		}
		if uri.Scheme == "amqps" {
			if connection, err = secured(connection, uri); err != nil {
				return nil, err
			}
		}
		return &lenient{Conn: connection, in: bufio.NewReaderSize(connection, 64<<10)}, nil
	}
	// TLS is below what makes an l of an L, and so not the library's.
	if rest, ok := strings.CutPrefix(text, "amqps:"); ok {
		text = "amqp:" + rest
	}
	return amqp.DialConfig(text, config)
}

// secured is a connection with TLS, as a URI asks for.
func secured(connection net.Conn, uri amqp.URI) (_ net.Conn, err error) {
	defer func() {
		if err != nil {
			connection.Close()
		}
	}()
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: uri.ServerName}
	if config.ServerName == "" {
		config.ServerName = uri.Host
	}
	if uri.CACertFile != "" {
		if config.RootCAs, err = tlsfiles.Authorities(uri.CACertFile); err != nil {
			return nil, fmt.Errorf("CA certificate: %w", err)
		}
	}
	if uri.CertFile != "" && uri.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(uri.CertFile, uri.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	client := tls.Client(connection, config)
	return client, client.Handshake()
}

// lenient reads frames from a broker, and changes a type in headers.
type lenient struct {
	net.Conn
	in *bufio.Reader
	// rest of a frame that was read.
	rest []byte
	// left is how much of a frame is passed on as it is.
	left int
}

const (
	frameHeaderBytes = 7
	// headersFrame is the type of a frame with a message's properties. One of more than the most that is negotiated is passed on, for the library to refuse.
	headersFrame, longestHeaders = 2, 1 << 20
	// deepest is how many tables and arrays may be in each other.
	deepest = 32
)

// Read implements net.Conn.
func (l *lenient) Read(p []byte) (int, error) {
	if len(l.rest) == 0 && l.left == 0 {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	if len(l.rest) > 0 {
		n := copy(p, l.rest)
		l.rest = l.rest[n:]
		return n, nil
	}
	n, err := l.in.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

// next begins a frame.
func (l *lenient) next() error {
	header, err := l.in.Peek(frameHeaderBytes)
	if err != nil {
		if len(header) == 0 {
			return err
		}
		l.left = len(header)
		return nil
	}
	size := int64(binary.BigEndian.Uint32(header[3:])) + frameHeaderBytes + 1
	if header[0] != headersFrame || size > longestHeaders {
		l.left = int(size)
		return nil
	}
	l.rest = make([]byte, size)
	n, err := io.ReadFull(l.in, l.rest)
	l.rest = l.rest[:n]
	if err == nil {
		lenientProperties(l.rest[frameHeaderBytes : size-1])
	}
	if n > 0 {
		return nil // the error comes again
	}
	return err
}

// lenientProperties changes the headers among a message's properties. What is malformed stays for the library to refuse.
func lenientProperties(b []byte) {
	const contentType, contentEncoding, headers, at = 1 << 15, 1 << 14, 1 << 13, 12
	if len(b) < at+2 {
		return
	}
	flags := binary.BigEndian.Uint16(b[at:])
	b = b[at+2:]
	for _, property := range []uint16{contentType, contentEncoding} {
		if flags&property == 0 {
			continue
		}
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return
		}
		b = b[1+int(b[0]):]
	}
	if flags&headers != 0 {
		lenientFields(b, true, 0)
	}
}

// lenientFields changes a table, which has names, or an array, that is so deep in others. It returns what comes behind it; nil where it is malformed.
func lenientFields(b []byte, names bool, depth int) []byte {
	inside, behind, ok := long(b)
	for ok && len(inside) > 0 {
		if names {
			if len(inside) < 1+int(inside[0]) {
				return nil
			}
			inside = inside[1+int(inside[0]):]
		}
		if len(inside) == 0 {
			return nil
		}
		kind := inside[0]
		switch {
		case kind == 'L':
			kind = 'l'
		case depth == deepest && (kind == 'F' || kind == 'A'):
			kind = 'x' // bytes, which begin with their length, as those do
		}
		inside[0] = kind
		inside = inside[1:]
		switch kind {
		case 'F', 'A':
			if inside = lenientFields(inside, kind == 'F', depth+1); inside == nil {
				return nil
			}
			continue
		case 'S', 'x':
			_, inside, ok = long(inside)
			continue
		}
		size, known := map[byte]int{'t': 1, 'b': 1, 'B': 1, 's': 2, 'u': 2, 'I': 4, 'i': 4, 'f': 4, 'D': 5, 'l': 8, 'd': 8, 'T': 8, 'V': 0}[kind]
		if !known || len(inside) < size {
			return nil
		}
		inside = inside[size:]
	}
	if !ok {
		return nil
	}
	return behind
}

// long is a value that begins with its length, and what comes behind it, which is never nil.
func long(b []byte) (value, behind []byte, ok bool) {
	const size = 4
	if len(b) < size || uint64(len(b)-size) < uint64(binary.BigEndian.Uint32(b)) {
		return nil, nil, false
	}
	end := size + int(binary.BigEndian.Uint32(b))
	return b[size:end], b[end:len(b):len(b)], true
}
