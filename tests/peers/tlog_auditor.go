// An auditor that knows nothing of the broker: the tree, the tiles and the notes are read by Go's own
// checksum-database library (golang.org/x/mod/sumdb).
//
//	tlog_auditor audit SOURCE VKEY [OLD_SIZE OLD_ROOT]   a folder or an address of tiles
//	tlog_auditor entries FOLDER VKEY                     do the bundles hash to the leaves?
//	tlog_auditor proof FILE VKEY                         a proof of one record
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// source reads what lies below a log's prefix.
type source string

func (s source) read(path string) ([]byte, error) {
	if !strings.HasPrefix(string(s), "http://") {
		return os.ReadFile(filepath.Join(string(s), path))
	}
	answer, err := http.Get(string(s) + "/" + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

func (s source) Height() int { return height }

func (s source) SaveTiles([]tlog.Tile, [][]byte) {}

func (s source) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		// This library names the height, which C2SP leaves out.
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
		data, err := s.read(path)
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func open(message []byte, vkey string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(message, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("no checkpoint of %s", verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

func audit(from source, vkey string, old []string) (any, error) {
	message, err := from.read("checkpoint")
	if err != nil {
		return nil, err
	}
	tree, err := open(message, vkey)
	if err != nil {
		return nil, err
	}
	hashes := tlog.TileHashReader(tree, from)
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil {
		return nil, err
	}
	if root != tree.Hash {
		return nil, fmt.Errorf("the tiles have the root %s", root)
	}
	proved := 0
	for _, index := range []int64{0, 1, 255, 256, tree.N / 2, tree.N - 1} {
		if index >= tree.N {
			continue
		}
		leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			return nil, err
		}
		proof, err := tlog.ProveRecord(tree.N, index, hashes)
		if err != nil {
			return nil, err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf[0]); err != nil {
			return nil, err
		}
		proved++
	}
	if len(old) == 2 {
		size, err := strconv.ParseInt(old[0], 10, 64)
		if err != nil {
			return nil, err
		}
		before, err := tlog.ParseHash(old[1])
		if err != nil {
			return nil, err
		}
		proof, err := tlog.ProveTree(tree.N, size, hashes)
		if err != nil {
			return nil, err
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, size, before); err != nil {
			return nil, err
		}
	}
	return map[string]any{"size": tree.N, "root": root.String(), "proved": proved}, nil
}

func entries(from source, vkey string) (any, error) {
	message, err := from.read("checkpoint")
	if err != nil {
		return nil, err
	}
	tree, err := open(message, vkey)
	if err != nil {
		return nil, err
	}
	hashes := tlog.TileHashReader(tree, from)
	for first := int64(0); first < tree.N; first += 1 << height {
		tile := tlog.Tile{H: height, L: 0, N: first >> height, W: 1 << height}
		if tree.N-first < 1<<height {
			tile.W = int(tree.N - first)
		}
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/0/", height), "tile/entries/", 1)
		data, err := from.read(path)
		if err != nil {
			return nil, err
		}
		for index := first; index < first+int64(tile.W); index++ {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				return nil, fmt.Errorf("%s ends too early", path)
			}
			length := int(binary.BigEndian.Uint16(data))
			leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
			if err != nil {
				return nil, err
			}
			if tlog.RecordHash(data[2:2+length]) != leaf[0] {
				return nil, fmt.Errorf("record %d is another", index)
			}
			data = data[2+length:]
		}
		if len(data) != 0 {
			return nil, fmt.Errorf("%s goes on", path)
		}
	}
	return map[string]any{"size": tree.N}, nil
}

func proof(path, vkey string) (any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	head, message, found := bytes.Cut(text, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return nil, fmt.Errorf("no proof")
	}
	record, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return nil, err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return nil, err
	}
	var way tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		way = append(way, hash)
	}
	tree, err := open(message, vkey)
	if err != nil {
		return nil, err
	}
	if err := tlog.CheckRecord(way, tree.N, tree.Hash, index, tlog.RecordHash(record)); err != nil {
		return nil, err
	}
	return map[string]any{"size": tree.N, "index": index, "record": string(record)}, nil
}

func run(words []string) (any, error) {
	switch {
	case len(words) >= 3 && words[0] == "audit":
		return audit(source(words[1]), words[2], words[3:])
	case len(words) == 3 && words[0] == "entries":
		return entries(source(words[1]), words[2])
	case len(words) == 3 && words[0] == "proof":
		return proof(words[1], words[2])
	}
	return nil, fmt.Errorf("audit SOURCE VKEY [OLD_SIZE OLD_ROOT], entries FOLDER VKEY, or proof FILE VKEY")
}

func main() {
	found, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		os.Exit(2)
	}
}
