// Checks a log's published files with Go's own transparency-log packages.
//
//	verify DIR LOG-VKEY WITNESS-VKEY...
//
// The signed note, the tree, and the proofs are verified by golang.org/x/mod/sumdb/{note,tlog}; what
// stands here is the reading of files, and the cosignature type 0x04 that those packages lack.
package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func fail(format string, args ...interface{}) {
	fmt.Printf("FAIL: "+format+"\n", args...)
	os.Exit(1)
}

type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }
func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 72 {
		return false
	}
	time := binary.BigEndian.Uint64(sig[:8])
	text := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, msg)
	return ed25519.Verify(c.key, []byte(text), sig[8:])
}

func witness(vkey string) note.Verifier {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		fail("bad witness key")
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	data, err2 := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || err2 != nil || len(data) != 33 || data[0] != 4 {
		fail("bad witness key")
	}
	return &cosigner{parts[0], uint32(hash), ed25519.PublicKey(data[1:])}
}

type stored []tlog.Hash

func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(s)) {
			return nil, fmt.Errorf("no hash %d", index)
		}
		out[i] = s[index]
	}
	return out, nil
}

func tile(dir, level string, index, width int64) []byte {
	name := fmt.Sprintf("%03d", index%1000)
	for rest := index / 1000; rest > 0; rest /= 1000 {
		name = fmt.Sprintf("x%03d/%s", rest%1000, name)
	}
	if width < 256 {
		name += fmt.Sprintf(".p/%d", width)
	}
	data, err := os.ReadFile(filepath.Join(dir, "tile", level, name))
	if err != nil {
		fail("%v", err)
	}
	return data
}

func main() {
	dir := os.Args[1]
	log, err := note.NewVerifier(os.Args[2])
	if err != nil {
		fail("log key: %v", err)
	}
	verifiers := []note.Verifier{log}
	for _, vkey := range os.Args[3:] {
		verifiers = append(verifiers, witness(vkey))
	}
	data, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		fail("%v", err)
	}
	opened, err := note.Open(data, note.VerifierList(verifiers...))
	if err != nil {
		fail("checkpoint: %v", err)
	}
	if len(opened.Sigs) != len(verifiers) {
		fail("%d of %d signatures", len(opened.Sigs), len(verifiers))
	}
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || lines[0] != log.Name() {
		fail("checkpoint text")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		fail("root: %v", err)
	}
	var hashes stored
	var records [][]byte
	for start := int64(0); start < size; start += 256 {
		width := size - start
		if width > 256 {
			width = 256
		}
		entries := tile(dir, "entries", start/256, width)
		leaves := tile(dir, "0", start/256, width)
		for i := int64(0); i < width; i++ {
			if len(entries) < 2 {
				fail("entry %d is cut", start+i)
			}
			n := int(binary.BigEndian.Uint16(entries))
			if len(entries) < 2+n {
				fail("entry %d is cut", start+i)
			}
			record := entries[2 : 2+n]
			entries = entries[2+n:]
			more, err := tlog.StoredHashes(start+i, record, hashes)
			if err != nil {
				fail("entry %d: %v", start+i, err)
			}
			hash := tlog.RecordHash(record)
			if !bytes.Equal(hash[:], leaves[32*i:32*i+32]) {
				fail("entry %d does not match its tile", start+i)
			}
			hashes = append(hashes, more...)
			records = append(records, record)
		}
	}
	got, err := tlog.TreeHash(size, hashes)
	if err != nil || got != root {
		fail("the entries do not have the signed root")
	}
	for index := int64(0); index < size; index++ {
		proof, err := tlog.ProveRecord(size, index, hashes)
		if err != nil {
			fail("proof of %d: %v", index, err)
		}
		if err := tlog.CheckRecord(proof, size, root, index, tlog.RecordHash(records[index])); err != nil {
			fail("entry %d: %v", index, err)
		}
	}
	fmt.Printf("OK %d entries, %d signatures\n", size, len(opened.Sigs))
}
