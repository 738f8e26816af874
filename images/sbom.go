package images

import (
	"cmp"
	"crypto/sha1" // SPDX asks for it
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// The part of SPDX 2.3 that we write.
type (
	spdxDocument struct {
		Version       string             `json:"spdxVersion"`
		DataLicense   string             `json:"dataLicense"`
		ID            string             `json:"SPDXID"`
		Name          string             `json:"name"`
		Namespace     string             `json:"documentNamespace"`
		Creation      spdxCreation       `json:"creationInfo"`
		Packages      []spdxPackage      `json:"packages"`
		Files         []spdxFile         `json:"files"`
		Relationships []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID               string            `json:"SPDXID"`
		Name             string            `json:"name"`
		Version          string            `json:"versionInfo,omitempty"`
		Purpose          string            `json:"primaryPackagePurpose"`
		DownloadLocation string            `json:"downloadLocation"`
		SourceInfo       string            `json:"sourceInfo,omitempty"`
		FilesAnalyzed    bool              `json:"filesAnalyzed"`
		VerificationCode *spdxVerification `json:"packageVerificationCode,omitempty"`
		LicenseConcluded string            `json:"licenseConcluded"`
		LicenseDeclared  string            `json:"licenseDeclared"`
		Copyright        string            `json:"copyrightText"`
		References       []spdxReference   `json:"externalRefs,omitempty"`
	}
	spdxVerification struct {
		Value string `json:"packageVerificationCodeValue"`
	}
	spdxReference struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxFile struct {
		ID               string         `json:"SPDXID"`
		Name             string         `json:"fileName"`
		Types            []string       `json:"fileTypes"`
		Checksums        []spdxChecksum `json:"checksums"`
		LicenseConcluded string         `json:"licenseConcluded"`
		Copyright        string         `json:"copyrightText"`
		Comment          string         `json:"comment"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxRelationship struct {
		From string `json:"spdxElementId"`
		Type string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
)

const (
	spdxDocumentID  = "SPDXRef-DOCUMENT"
	spdxImageID     = "SPDXRef-image"
	spdxNoAssertion = "NOASSERTION"
	ownLicense      = "Apache-2.0"
)

// sbom lists what the programs of an image are linked of, by what the linker wrote into them. Digest is the image's.
func sbom(spec Spec, digest string, programs []program) ([]byte, error) {
	version := cmp.Or(spec.Version, "unknown")
	document := spdxDocument{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: spdxDocumentID, Name: spec.Name + "-" + version,
		// Unique, as SPDX asks for, and the same twice.
		Namespace: fmt.Sprintf("%s/sbom/%s@%s", source, spec.Name, digest),
		Creation:  spdxCreation{epoch.Format(time.RFC3339), []string{"Tool: " + strings.TrimPrefix(source, "https://") + "/images"}},
		Packages: []spdxPackage{{
			ID: spdxImageID, Name: spec.Name, Version: version, Purpose: "CONTAINER", DownloadLocation: spdxNoAssertion,
			FilesAnalyzed: true, VerificationCode: verificationCode(programs), LicenseConcluded: ownLicense, LicenseDeclared: ownLicense,
			Copyright:  spdxNoAssertion,
			References: purl(fmt.Sprintf("pkg:oci/%s@%s", spec.Name, url.QueryEscape(digest))),
		}},
		Relationships: []spdxRelationship{{spdxDocumentID, "DESCRIBES", spdxImageID}},
	}
	modules := map[string]string{} // the SPDXID of each
	for i, p := range programs {
		file := spdxFile{
			ID: fmt.Sprintf("SPDXRef-file-%d", i+1), Name: "." + p.path, Types: []string{"BINARY"},
			Checksums:        []spdxChecksum{{"SHA1", p.sha1}, {"SHA256", p.sha256}},
			LicenseConcluded: spdxNoAssertion, Copyright: spdxNoAssertion, Comment: "linux/" + p.arch,
		}
		document.Files = append(document.Files, file)
		document.Relationships = append(document.Relationships, spdxRelationship{spdxImageID, "CONTAINS", file.ID})
		for _, module := range linked(p, version) {
			key := module.Path + "@" + module.Version
			if modules[key] == "" {
				modules[key] = fmt.Sprintf("SPDXRef-module-%d", len(modules)+1)
				document.Packages = append(document.Packages, packageOf(modules[key], module))
			}
			document.Relationships = append(document.Relationships, spdxRelationship{file.ID, "STATIC_LINK", modules[key]})
		}
	}
	return json.MarshalIndent(document, "", "  ")
}

// linked are the modules of a program: our own in the given version, Go's standard library, and all others.
func linked(p program, version string) []debug.Module {
	modules := []debug.Module{{Path: p.info.Main.Path, Version: version}, {Path: "stdlib", Version: strings.TrimPrefix(p.info.GoVersion, "go")}}
	for _, module := range p.info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		modules = append(modules, *module)
	}
	return modules
}

func packageOf(id string, module debug.Module) spdxPackage {
	p := spdxPackage{
		ID: id, Name: module.Path, Version: module.Version, Purpose: "LIBRARY", DownloadLocation: spdxNoAssertion,
		LicenseConcluded: spdxNoAssertion, LicenseDeclared: spdxNoAssertion, Copyright: spdxNoAssertion,
		// A package URL of Go's is in lower case, and a plus sign in it would be read as a space.
		References: purl("pkg:golang/" + strings.ToLower(module.Path) + "@" + strings.ReplaceAll(module.Version, "+", "%2B")),
	}
	if module.Sum != "" {
		p.SourceInfo = "Go module checksum " + module.Sum
	}
	return p
}

func purl(locator string) []spdxReference {
	return []spdxReference{{Category: "PACKAGE-MANAGER", Type: "purl", Locator: locator}}
}

// verificationCode is made of the files' SHA-1 sums in the way that SPDX lays down.
func verificationCode(programs []program) *spdxVerification {
	var sums []string
	for _, p := range programs {
		sums = append(sums, p.sha1)
	}
	slices.Sort(sums)
	sum := sha1.Sum([]byte(strings.Join(sums, "")))
	return &spdxVerification{hex.EncodeToString(sum[:])}
}
