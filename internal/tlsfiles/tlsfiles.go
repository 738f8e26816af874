// Package tlsfiles makes TLS from PEM files, which are read again for every connection: a rotation needs no restart.
package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// Files are a pair of a certificate and its key, and the authority of the other side's certificate.
type Files struct{ Cert, Key, CA string }

// Set says whether there are any. Some but not all of them are an error of Check.
func (f Files) Set() bool { return f != Files{} }

// Check reads all files, for mutual TLS.
func (f Files) Check() error {
	if f.Cert == "" || f.Key == "" || f.CA == "" {
		return errors.New("a certificate, its key and the other side's CA go together: set all three or none")
	}
	if _, err := f.pair(); err != nil {
		return err
	}
	_, err := Authorities(f.CA)
	return err
}

func (f Files) pair() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	return &pair, err
}

// Authorities reads those that are trusted.
func Authorities(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: holds no PEM certificate", path)
	}
	return pool, nil
}

// Client presents the certificate to a server whose certificate the CA signed.
func (f Files) Client() (*tls.Config, error) {
	pool, err := Authorities(f.CA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.pair() },
	}, nil
}

// Server is the side that is connected to.
type Server struct {
	files Files
	good  atomic.Pointer[tls.Certificate] // the pair that was read last
}

// NewServer reads the files once, so that a wrong one is an error at start. Without a CA any client may connect.
func NewServer(files Files) (*Server, error) {
	s := &Server{files: files}
	pair, err := files.pair()
	if err != nil {
		return nil, err
	}
	s.good.Store(pair)
	_, err = s.connection()
	return s, err
}

// Certificate is what is presented. While the files of the pair can't be read, as when a new one is half written, the last good one is.
func (s *Server) Certificate() *tls.Certificate {
	if pair, err := s.files.pair(); err == nil {
		s.good.Store(pair)
	}
	return s.good.Load()
}

// Config takes only clients whose certificate the CA signed, where there is one. A CA that was removed is trusted no more, and while it can't be read
// nobody connects.
func (s *Server) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.connection() },
	}
}

func (s *Server) connection() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{*s.Certificate()}}
	if s.files.CA == "" {
		return config, nil
	}
	var err error
	config.ClientCAs, err = Authorities(s.files.CA)
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, err
}
