package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// authority is a certificate authority whose files lie in one folder: NAME.crt and NAME.key.
type authority struct {
	dir, name string
	cert      *x509.Certificate
	key       crypto.Signer
}

// subject is what a certificate is for.
type subject struct {
	commonName   string
	organization []string
	// dnsNames make a serving certificate for these names, localhost and 127.0.0.1. Nil makes a client certificate.
	dnsNames []string
	// addresses of a serving certificate beside 127.0.0.1.
	addresses []string
}

func newAuthority(dir, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certificate, err := cert.NewSelfSignedCACert(cert.Config{CommonName: "ebbtide-" + name}, key)
	if err != nil {
		return nil, err
	}
	a := &authority{dir: dir, name: name, cert: certificate, key: key}
	return a, writePair(dir, name, certificate.Raw, key)
}

// issue signs a certificate that serves and authenticates, and writes it to NAME.crt and NAME.key.
func (a *authority) issue(name string, s subject) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.commonName, Organization: s.organization},
		NotBefore:    a.cert.NotBefore,
		NotAfter:     time.Now().AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if s.dnsNames != nil {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.DNSNames = append([]string{"localhost"}, s.dnsNames...)
		for _, address := range append([]string{"127.0.0.1"}, s.addresses...) {
			template.IPAddresses = append(template.IPAddresses, net.ParseIP(address))
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign %s: %w", name, err)
	}
	return writePair(a.dir, name, der, key)
}

// path of the authority's own certificate.
func (a *authority) path() string { return filepath.Join(a.dir, a.name+".crt") }

// clientConfig trusts the authority and presents the named certificate.
func (a *authority) clientConfig(name string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// serviceAccountKeys writes the key pair that signs and checks service account tokens: sa.key and sa.pub.
func serviceAccountKeys(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: keyutil.PublicKeyBlockType, Bytes: der})
	if err := os.WriteFile(filepath.Join(dir, "sa.key"), private, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "sa.pub"), public, 0o644)
}

func writePair(dir, name string, der []byte, key crypto.Signer) error {
	private, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	public, err := cert.EncodeCertificates(certificate)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".crt"), public, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".key"), private, 0o600)
}
