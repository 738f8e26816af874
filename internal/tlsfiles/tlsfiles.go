// Package tlsfiles makes mutual TLS from PEM files, which are read again for every connection: a rotation needs no restart.
package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Files are a pair of a certificate and its key, and the authority of the other side's certificate.
type Files struct{ Cert, Key, CA string }

// Set says whether there are any. Some but not all of them are an error of Check.
func (f Files) Set() bool { return f != Files{} }

// Check reads all files.
func (f Files) Check() error {
	if f.Cert == "" || f.Key == "" || f.CA == "" {
		return errors.New("a certificate, its key and the other side's CA go together: set all three or none")
	}
	_, _, err := f.read()
	return err
}

func (f Files) read() (*tls.Certificate, *x509.CertPool, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, nil, err
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("%s: holds no PEM certificate", f.CA)
	}
	return &pair, pool, nil
}

// Server takes clients only whose certificate the CA signed.
func (f Files) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			pair, pool, err := f.read()
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{*pair}, ClientCAs: pool,
				ClientAuth: tls.RequireAndVerifyClientCert,
			}, nil
		},
	}
}

// Client presents the certificate to a server whose certificate the CA signed.
func (f Files) Client() (*tls.Config, error) {
	_, pool, err := f.read()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, _, err := f.read()
			return pair, err
		},
	}, nil
}
