// Package roots embeds the public certificate authorities of Mozilla's list, for systems without any, such as the project's images. Go uses
// them only where the system has no certificates: what is mounted at /etc/ssl/certs, or named by SSL_CERT_FILE, replaces them.
//
// Every program that opens TLS connections imports this package for its side effect.
package roots

import _ "golang.org/x/crypto/x509roots/fallback" // sets the fallback
