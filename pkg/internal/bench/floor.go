package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	relayBuffer = 64 * kib
	sealChunk   = 16 * kib
)

// runRelay is the floor: a SOCKS5 proxy that connects directly and does to
// every byte, in both directions, what no VMess client can go without, one
// pass of AES-GCM and the WebSocket mask. It does so on a copy, so that what
// it forwards stays what it was. It serves addr until the process ends.
func runRelay(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	var (
		open    connSet
		running sync.WaitGroup
	)
	serve(ln, &open, &running, relaySOCKS)
	return nil
}

// relaySOCKS serves one connection.
func relaySOCKS(near *net.TCPConn) {
	far, err := acceptSOCKS(near)
	if err != nil {
		return
	}
	defer far.Close()
	var both sync.WaitGroup
	both.Go(func() { relayOneWay(far, near) })
	both.Go(func() { relayOneWay(near, far) })
	both.Wait()
}

// acceptSOCKS is the proxy's part of what [socksConnect] asks for.
func acceptSOCKS(near *net.TCPConn) (*net.TCPConn, error) {
	var greeting [3]byte
	if err := readFull(near, greeting[:]); err != nil {
		return nil, err
	}
	if _, err := near.Write([]byte{5, 0}); err != nil {
		return nil, err
	}
	var request [10]byte
	if err := readFull(near, request[:]); err != nil {
		return nil, err
	}
	if request[1] != 1 || request[3] != 1 {
		return nil, fmt.Errorf("request %d with address type %d", request[1], request[3])
	}
	far, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: request[4:8], Port: int(request[8])<<8 | int(request[9])})
	if err != nil {
		return nil, err
	}
	if _, err := near.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		return nil, errors.Join(err, far.Close())
	}
	return far, nil
}

func relayOneWay(dst, src *net.TCPConn) {
	buf, work := make([]byte, relayBuffer), newLabour()
	for {
		n, err := src.Read(buf)
		work.do(buf[:n])
		if _, writeErr := dst.Write(buf[:n]); writeErr != nil {
			_ = src.Close()
			return
		}
		if err != nil {
			_ = dst.CloseWrite()
			return
		}
	}
}

// labour is the work that nobody can go without.
type labour struct {
	aead    cipher.AEAD
	nonce   []byte
	scratch []byte
	mask    []byte
}

func newLabour() *labour {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		panic(err) // the key has the right size
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the right block size
	}
	l := &labour{
		aead: aead, nonce: make([]byte, aead.NonceSize()),
		scratch: make([]byte, sealChunk+aead.Overhead()), mask: make([]byte, sealChunk+aead.Overhead()),
	}
	for i := range l.mask {
		l.mask[i] = "\x5a\xc3\x0f\x99"[i%4]
	}
	return l
}

// do seals data into chunks and masks them. data is left as it is.
func (l *labour) do(data []byte) {
	for len(data) > 0 {
		n := min(len(data), sealChunk)
		sealed := l.aead.Seal(l.scratch[:0], l.nonce, data[:n], nil)
		subtle.XORBytes(sealed, sealed, l.mask)
		data = data[n:]
	}
}

// labourAlone returns how many seconds of CPU seal, mask and one copy take for
// each GiB here, without any reading and writing.
func labourAlone() float64 {
	const total = gib / 4
	data, copied, work := make([]byte, relayBuffer), make([]byte, relayBuffer), newLabour()
	start := time.Now()
	for done := 0; done < total; done += len(data) {
		work.do(data)
		copy(copied, data)
	}
	return time.Since(start).Seconds() * gib / total
}
