package vmess

import (
	"context"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// Why a server refuses a request. They are for the server's own log: nothing
// of them reaches the peer. Their words are the ones that V2Ray's log has.
var (
	ErrInvalidUser      = errors.New("invalid user")
	ErrReplayed         = errors.New("replayed request")
	ErrDuplicateSession = errors.New("duplicated session id, possibly under replay attack")
	ErrTainted          = errors.New("ErrTainted: this legacy credential met a replay or a corrupted request before")
	ErrAEADRequired     = errors.New("VMessAEAD is enforced and a non VMessAEAD connection is received. " +
		"You can still disable this security feature with environment variable V2RAY_VMESS_AEAD_FORCED=false . " +
		"You will not be able to enable legacy header workaround in the future")
)

// ErrNoRequest is returned by Accept when the peer went away, or stayed
// silent, before it sent a whole request.
var ErrNoRequest = errors.New("no request came")

// A RefusedError tells why Accept refused a request.
type RefusedError struct {
	Reason error
	// Tainted is set when this request burnt the legacy credential it used.
	Tainted bool
}

// Error implements error in the words of V2Ray's log.
func (e *RefusedError) Error() string {
	switch {
	case !e.Tainted:
		return e.Reason.Error()
	case errors.Is(e.Reason, ErrDuplicateSession):
		return e.Reason.Error() + ", userHash tainted"
	}
	return e.Reason.Error() + ", legacy userHash tainted"
}

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Reason }

// A User is one whom a Server serves.
type User struct {
	ID      ID
	AlterID int    // derived ids that the legacy mode accepts too
	Name    string // for logs and accounting
}

// A ServerConfig says whom a Server serves and how.
type ServerConfig struct {
	Users []User
	// AEADForced refuses legacy requests ([AEADForced]).
	AEADForced bool
	// Patience is how long a request may take to come, and a refused
	// connection may stay open, from Accept on; 0 means 60 s, as V2Ray has it.
	// Clients keep tunnels open ahead of their requests, so it is not short.
	Patience time.Duration
	// Refused, when not nil, is called with a *RefusedError as soon as a
	// request is refused: Accept goes on to treat the peer like any other.
	Refused func(carrier transport.StreamConn, err error)
	// Now is the clock that requests are held against; nil means time.Now.
	Now func() time.Time
}

// A Server opens requests. It may be used concurrently.
type Server struct {
	roster   atomic.Pointer[userTable]
	forced   bool
	patience time.Duration
	refused  func(transport.StreamConn, error)
	now      func() time.Time
	authIDs  *replayFilter[[16]byte]
	sessions *replayFilter[sessionID]
	drain    drainCount
	taints   taints
	check    legacyCheck
}

// A userTable is those who are served, as long as nobody else is.
type userTable struct {
	users     []*serverUser
	legacyIDs []legacyID
	legacy    *legacyTable // nil where AEAD is forced
}

type serverUser struct {
	User
	cmdKey [16]byte
	authID cipher.Block
}

// A sessionID is what no two requests share: the user and the keys drawn.
type sessionID struct {
	user    ID
	key, iv [16]byte
}

const (
	headerPatience = 60 * time.Second
	sessionMemory  = 3 * time.Minute
	// An AuthID may carry a time up to the window ahead and is good up to the
	// window behind it.
	authIDMemory = 2*TimeWindow + time.Second
	// openingBuffer is what a connection costs before it has authenticated: a
	// whole header with a name of usual length.
	openingBuffer = 512
	// memoryLimit bounds each generation of remembered requests.
	memoryLimit = 1 << 20
	// memorySpare is how many each holds, however old, before any are forgotten:
	// a clock that ran ahead for hours and is set back opens no gap.
	memorySpare = 1 << 15
	// maxLegacyIDs bounds the ids, derived ones included, that legacy requests
	// are looked up by: each costs 241 table entries.
	maxLegacyIDs = 1 << 14
)

// Errors of NewServer.
var (
	ErrNoUsers      = errors.New("no users")
	ErrSameID       = errors.New("two users have the same id")
	ErrManyAlterIDs = fmt.Errorf("more than %d ids in all: lower alterId (0 is right for every client since 2021)", maxLegacyIDs)

	errNegativeAlterID = errors.New("an alterId is negative")
)

// NewServer returns a Server; the configuration's users are copied.
func NewServer(c ServerConfig) (*Server, error) {
	s := &Server{
		forced: c.AEADForced, patience: c.Patience, refused: c.Refused, now: c.Now,
		authIDs:  newReplayFilter[[16]byte](authIDMemory, memorySpare, memoryLimit),
		sessions: newReplayFilter[sessionID](sessionMemory, memorySpare, memoryLimit),
		drain:    newDrainCount(c.Users),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.patience == 0 {
		s.patience = headerPatience
	}
	if s.refused == nil {
		s.refused = func(transport.StreamConn, error) {}
	}
	if err := s.SetUsers(c.Users); err != nil {
		return nil, err
	}
	if !s.forced {
		keepLegacy(s)
	}
	return s, nil
}

// SetUsers makes others those who are served, with the errors of NewServer;
// all stays as it was then. Requests that were accepted go on. What was
// remembered against replays stays remembered. It may be called at any time.
func (s *Server) SetUsers(users []User) error {
	r := new(userTable)
	known, ids := map[ID]bool{}, 0
	for _, u := range users {
		switch {
		case known[u.ID]:
			return ErrSameID
		case u.AlterID < 0:
			return errNegativeAlterID
		}
		known[u.ID] = true
		ids += 1 + min(u.AlterID, maxLegacyIDs)
		key := u.ID.cmdKey()
		r.users = append(r.users, &serverUser{User: u, cmdKey: key, authID: authIDCipher(key)})
	}
	switch {
	case len(r.users) == 0:
		return ErrNoUsers
	case ids > maxLegacyIDs:
		return ErrManyAlterIDs
	}
	r.legacyIDs = legacyIDs(r.users)
	if !s.forced {
		r.legacy = newLegacyTable(r.legacyIDs, s.now())
	}
	s.roster.Store(r)
	return nil
}

// Format keeps the users' keys out of logs, whatever the verb.
func (s *Server) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(vmess server)") }

// An Incoming is an accepted request. It is the Pending answer of a stream.
type Incoming struct {
	User        string
	Command     Command
	Destination netaddr.Addr // none for CommandMux
	Security    Security
	Legacy      bool // the header was of the MD5 kind
	Own         bool // the client is of this package, as far as its header tells

	conn *Conn
}

var _ transport.Pending = (*Incoming)(nil)

// Accept reads one request from carrier. When it returns an error it has
// closed carrier: at once for a peer that went away (ErrNoRequest), and for a
// refused request (*RefusedError) as late as for any other refused one, so
// that the peer learns nothing of the reason: once a number of bytes came that
// is the server's secret, or after Patience. Cancelling ctx closes carrier.
func (s *Server) Accept(ctx context.Context, carrier transport.StreamConn) (*Incoming, error) {
	_ = carrier.SetReadDeadline(time.Now().Add(s.patience))
	stop := context.AfterFunc(ctx, func() { _ = carrier.Close() })
	in := newInbuf(carrier)
	in.small = openingBuffer
	o := requestParser{server: s, in: &in}
	h, err := o.open()
	switch {
	case err == nil && stop():
		_ = carrier.SetReadDeadline(time.Time{})
		return s.incoming(&o, h, carrier), nil
	case err == nil:
		return nil, context.Cause(ctx)
	case in.err != nil && !o.decided:
		stop()
		_ = carrier.Close()
		return nil, fmt.Errorf("%w: %w", ErrNoRequest, err)
	}
	defer stop()
	told := s.tellRefused(carrier, &o, err)
	s.drainConn(&in)
	_ = carrier.Close()
	return nil, <-told
}

// tellRefused tells Refused why a request was refused, and returns the same
// then. What takes a while to find out is found out beside: the peer must not
// notice.
func (s *Server) tellRefused(carrier transport.StreamConn, o *requestParser, err error) <-chan *RefusedError {
	told := make(chan *RefusedError, 1)
	tell := func(err error) {
		refused := &RefusedError{Reason: err, Tainted: o.tainted}
		s.refused(carrier, refused)
		told <- refused
	}
	if !s.forced || !o.unknown || !s.check.begin() {
		tell(err)
		return told
	}
	ids, hash, now := s.roster.Load().legacyIDs, o.hash, o.now
	go func() {
		if s.check.known(ids, hash, now) {
			err = fmt.Errorf("%w: %w", ErrInvalidUser, ErrAEADRequired)
		}
		tell(err)
	}()
	return told
}

// drainConn reads on until the peer has sent the secret number of bytes or its
// time is over.
func (s *Server) drainConn(in *inbuf) {
	left := int64(s.drain.draw()) - in.total
	if in.buf != nil {
		in.r = in.w
		in.release()
	}
	var sink [512]byte
	for left > 0 && in.err == nil {
		n, err := in.carrier.Read(sink[:])
		left -= int64(n)
		in.err = err
	}
}

func (s *Server) incoming(o *requestParser, h *requestHeader, carrier transport.StreamConn) *Incoming {
	legacy := o.credential.user != nil
	keys := deriveResponse(h, legacy)
	option := byte(responseEndsApart)
	breaks := o.own && o.note&noteBreaks != 0 && h.security.sealed()
	if breaks {
		option |= responseBreaks
	}
	header, stream := keys.seal(nil, h.v, option)
	conn := &Conn{
		carrier: carrier,
		reader:  bodyReader{in: *o.in},
		writer:  newBodyWriter(responseFormat(h, keys), stream),
		pending: header,
	}
	conn.marksBreaks.Store(breaks)
	conn.reader.start(requestFormat(h, legacy), nil)
	conn.reader.in.release()
	conn.reader.marksEnds, conn.reader.closesCleanly = o.own && h.option.has(OptionChunked), o.own
	if o.note&noteTell != 0 {
		_, _ = conn.Write(nil) // its error is the next write's too
	}
	return &Incoming{
		User: o.user.Name, Command: h.command, Destination: h.address,
		Security: h.security, Legacy: legacy, Own: o.own, conn: conn,
	}
}

// Proceed implements transport.Pending: the answer's header goes out with the
// first bytes of the destination.
func (i *Incoming) Proceed(netip.AddrPort) (transport.StreamConn, error) { return i.conn, nil }

// Abort implements transport.Pending: an authentic answer without data, which
// is all that VMess can say (section 6).
func (i *Incoming) Abort(error) error {
	_ = i.conn.SetWriteDeadline(time.Now().Add(time.Second))
	return errors.Join(i.conn.CloseWrite(), i.conn.Close())
}

// An requestParser is the reading of one request.
type requestParser struct {
	server *Server
	in     *inbuf
	now    time.Time // when the request came: tunnels may wait long for theirs

	hash       [16]byte // the first bytes
	user       *serverUser
	credential legacyCredential // of a legacy request
	unknown    bool             // the first bytes are no user's
	decided    bool             // the request was there and found wanting
	tainted    bool
	own        bool // it comes from this package's client
	note       byte // with these flags
}

func (o *requestParser) open() (*requestHeader, error) {
	p, err := o.in.take(authIDSize)
	if err != nil {
		return nil, err
	}
	hash := [16]byte(p)
	o.hash, o.now = hash, o.server.now()
	if o.user = o.findAEAD(hash); o.user != nil {
		if !o.server.authIDs.add(hash, o.now) {
			return nil, o.judge(fmt.Errorf("%w: %w", ErrInvalidUser, ErrReplayed))
		}
		return o.openAEAD(hash)
	}
	var ok bool
	if legacy := o.server.roster.Load().legacy; legacy != nil {
		o.credential, ok = legacy.find(hash, o.now)
	}
	switch {
	case !ok:
		o.unknown, o.credential = true, legacyCredential{}
		return nil, o.judge(fmt.Errorf("%w: Not Found", ErrInvalidUser))
	case o.server.taints.has(hash):
		return nil, o.judge(fmt.Errorf("%w: %w", ErrInvalidUser, ErrTainted))
	}
	o.user = o.credential.user
	h, err := o.openLegacy()
	// Not for a request that is whole and asks for what is not served: others
	// of the same user and second share the credential.
	if errors.Is(err, errChecksum) || errors.Is(err, ErrDuplicateSession) {
		o.server.taints.add(hash, o.credential)
		o.tainted = true
	}
	return h, err
}

// judge marks err as the server's judgement, not the carrier's end.
func (o *requestParser) judge(err error) error { o.decided = true; return err }

// findAEAD tries every user's key on an AuthID. A time outside the window is
// as good as no user.
func (o *requestParser) findAEAD(id [16]byte) *serverUser {
	plain := make([]byte, len(id))
	for _, u := range o.server.roster.Load().users {
		if unix, ok := tryAuthID(u.authID, id[:], plain); ok && inWindow(unix, o.now) {
			return u
		}
	}
	return nil
}

func (o *requestParser) openAEAD(id [16]byte) (*requestHeader, error) {
	p, err := o.in.take(sealedLenSize + nonceSize)
	if err != nil {
		return nil, err
	}
	keys := headerKeys{cmdKey: o.user.cmdKey, authID: id, nonce: [8]byte(p[sealedLenSize:])}
	length, err := keys.aead(saltLengthKey).Open(nil, keys.nonceFor(saltLengthNonce), p[:sealedLenSize], id[:])
	if err != nil {
		return nil, o.judge(fmt.Errorf("%w: AEAD read failed", ErrBadHeader))
	}
	if p, err = o.in.take(int(binary.BigEndian.Uint16(length)) + tagSize); err != nil {
		return nil, err
	}
	plain, err := keys.aead(saltHeaderKey).Open(nil, keys.nonceFor(saltHeaderNonce), p, id[:])
	if err != nil {
		return nil, o.judge(fmt.Errorf("%w: AEAD read failed", ErrBadHeader))
	}
	h, err := readHeader(func(n int) ([]byte, error) {
		if n > len(plain) {
			return nil, fmt.Errorf("%w: it is too short", ErrBadHeader)
		}
		piece := plain[:n]
		plain = plain[n:]
		return piece, nil
	}, o.fresh)
	if err != nil {
		return nil, o.judge(err)
	}
	o.note, o.own = readNote(plain)
	return h, nil
}

func (o *requestParser) openLegacy() (*requestHeader, error) {
	iv := legacyIV(o.credential.unix)
	stream := cfbDecrypter(o.user.cmdKey[:], iv[:])
	var carrierErr error
	h, err := readHeader(func(n int) ([]byte, error) {
		p, err := o.in.take(n)
		if err != nil {
			carrierErr = err
			return nil, err
		}
		stream.XORKeyStream(p, p)
		return p, nil
	}, o.fresh)
	if err != nil && carrierErr == nil {
		return nil, o.judge(err)
	}
	return h, err
}

// fresh refuses a session that was seen before.
func (o *requestParser) fresh(h *requestHeader) error {
	if !o.server.sessions.add(sessionID{o.user.ID, h.key, h.iv}, o.now) {
		return ErrDuplicateSession
	}
	return nil
}
