// Package audit is the first form of bailey's evidence: a journal of typed
// events on disk, made durable by group commit and chained by hash, so that a
// change, a removal or a reordering of what was written is found by [Verify].
// It records; what is worth recording is decided by the doors and services.
package audit

import (
	"context"
	"errors"
	"time"

	"github.com/baileyhq/bailey"
)

// ErrUnwritable is wrapped by Append when the journal cannot make an event
// durable. Callers of critical actions must then refuse the action.
var ErrUnwritable = errors.New("the audit journal cannot be written")

// An Action is what happened. The set is closed: a new action is a new line here.
type Action string

// The actions.
const (
	ServerStart    Action = "server.start"
	ServerStop     Action = "server.stop"
	ConfigReload   Action = "config.reload"
	SetupDone      Action = "setup.done"
	SignIn         Action = "session.signin"
	SignOut        Action = "session.signout"
	TokenCreate    Action = "token.create"
	TokenRevoke    Action = "token.revoke"
	DeviceApprove  Action = "device.approve" // a program may fetch a token in somebody's name
	DeviceDeny     Action = "device.deny"
	AccessEnd      Action = "access.end" // every session, token and connection of a user
	GroupChange    Action = "group.change"
	MetadataView   Action = "workspace.view" // somebody who is not its owner looked at it
	AccessDenied   Action = "access.denied"
	GuardLock      Action = "guard.lock"  // failures blocked a subject from one place
	GuardBan       Action = "guard.ban"   // failures on many subjects, or an administrator, banned a place
	GuardAlert     Action = "guard.alert" // a place would be banned that may be everybody's way in
	GuardLift      Action = "guard.lift"
	UserCreate     Action = "user.create"
	UserUpdate     Action = "user.update"
	UserDelete     Action = "user.delete"
	UserLink       Action = "user.link" // an account is tied to a company account
	UserUnlink     Action = "user.unlink"
	PasswordChange Action = "user.password"
	PasswordImport Action = "user.password_import" // an account made with a hash from elsewhere
	PasswordRehash Action = "user.password_rehash" // the same password, hashed anew
	PasswordExpire Action = "user.password_expire" // too old: changed before anything else
	FactorAsk      Action = "factor.ask"           // the password was right; a second factor is asked for
	FactorUse      Action = "factor.use"
	FactorAdd      Action = "factor.add"
	FactorRemove   Action = "factor.remove"
	FactorReset    Action = "factor.reset" // all of a user's, by an administrator
	FactorCodes    Action = "factor.codes" // fresh recovery codes
	StepUp         Action = "session.step_up"
	BrowserAdd     Action = "browser.add" // somebody is known by it from now on
	BrowserForget  Action = "browser.forget"
	SecretSet      Action = "secret.set"
	SecretRemove   Action = "secret.remove"
	Launch         Action = "workspace.launch"
	LaunchFailed   Action = "workspace.launch_failed"
	Stop           Action = "workspace.stop"
	Delete         Action = "workspace.delete"
	VolumeDelete   Action = "volume.delete"
	Opened         Action = "workspace.open"
	VerifyFailed   Action = "workspace.verify_failed"
	OrphanFound    Action = "engine.orphan"
	EgressConnect  Action = "egress.connect" // a workspace reaches out to a host; before the first byte
	EgressTraffic  Action = "egress.traffic" // what its connections there carried, when they have ended
	EgressRefused  Action = "egress.refused"
	EgressCut      Action = "egress.cut" // an open connection that rules, a grant's end or a limit ended
	EgressAllow    Action = "egress.allow"
	EgressDeny     Action = "egress.deny"
	EgressRevoke   Action = "egress.revoke"
	ImageDecided   Action = "image.decide" // may it start: asked at every start
	ImageAdd       Action = "image.add"
	ImageApprove   Action = "image.approve"
	ImageRetire    Action = "image.retire"
	ImageSign      Action = "image.countersign"
	ImageFetch     Action = "image.fetch" // pulled or loaded into the engine
	ImageImport    Action = "image.import"
	ImageExport    Action = "image.export"
	KernelExecute  Action = "kernel.execute" // a cell was run: its hash, size and time, never its text
	DLPFinding     Action = "dlp.finding"
	DLPShadow      Action = "dlp.shadow"  // a finding of rules on trial
	DLPRefused     Action = "dlp.refused" // what could not be looked at
	DLPSampled     Action = "dlp.sampled" // part of a long output was left out
	SSHWatch       Action = "ssh.watch"   // somebody looks at a living session
	SSHReplay      Action = "ssh.replay"  // somebody reads a recording
	SSHKill        Action = "ssh.kill"
	RecordingKept  Action = "recording.kept" // whole: Digest is of its file
	RecordingCut   Action = "recording.cut"  // it could not go on
	RecordingGone  Action = "recording.delete"
	RulesReload    Action = "rules.reload"
	RulesShadow    Action = "rules.shadow"
	RulesActivate  Action = "rules.activate"
	RulesRollback  Action = "rules.rollback"
	SSHKeyAdd      Action = "sshkey.add"
	SSHKeyRename   Action = "sshkey.rename"
	SSHKeyRemove   Action = "sshkey.remove"
	SSHKeyExpiring Action = "sshkey.expiring" // it will end soon, and its owner should add another
	SSHCertIssue   Action = "sshcert.issue"
	SSHCertRevoke  Action = "sshcert.revoke"
	SSHSession     Action = "ssh.session" // a shell, a command or sftp begins; before anything runs
	SSHForward     Action = "ssh.forward" // a port or socket inside is reached, or listens; once for each in a connection
	SSHEnd         Action = "ssh.end"     // a session has ended, and what it carried
	SSHUnrecorded  Action = "ssh.unrecorded"
)

// An Outcome says how an action ended.
type Outcome string

// The outcomes.
const (
	Success Outcome = "success"
	Failure Outcome = "failure"
	Refused Outcome = "refused"
)

// A Reason says why, from a closed set; free text has no place in the journal.
type Reason string

// The reasons.
const (
	NoReason        Reason = ""
	BadCredentials  Reason = "bad_credentials"
	LockedOut       Reason = "locked_out"
	AccountDisabled Reason = "account_disabled"
	WrongPlace      Reason = "wrong_place" // an address on none of the lists that concern the person
	Pressed         Reason = "pressed"     // many strangers failed on the account; a password is not enough now
	NotAllowed      Reason = "not_allowed"
	OverQuota       Reason = "over_quota"
	NoGPU           Reason = "no_gpu"
	NoImage         Reason = "no_image"
	EngineFailed    Reason = "engine_failed"
	StartTimeout    Reason = "start_timeout"
	OutOfMemory     Reason = "out_of_memory"
	Exited          Reason = "exited"
	Mismatch        Reason = "mismatch"
	Idle            Reason = "idle"
	ByUser          Reason = "by_user"
	ByAdmin         Reason = "by_admin"
	Shutdown        Reason = "shutdown"
	InvalidConfig   Reason = "invalid_config"
	ForeignOrigin   Reason = "foreign_origin"
	BadAddress      Reason = "bad_address" // a name that leads to where nobody may be led
	BadServerName   Reason = "bad_server_name"
	BadRequest      Reason = "bad_request"
	Unreachable     Reason = "unreachable"
	RuleChanged     Reason = "rule_changed"
	Untrusted       Reason = "untrusted_image" // the policy does not allow it; Attrs.Verdict says why
	NotApproved     Reason = "image_not_approved"
	Retired         Reason = "image_retired"
	Malformed       Reason = "malformed"
	TooOld          Reason = "too_old"   // what retention lets go
	TooMuch         Reason = "too_much"  // what makes room for newer ones
	DiskFull        Reason = "disk_full" // no room for a recording
	TooSlow         Reason = "too_slow"
	InvalidRules    Reason = "invalid_rules"
	ServiceAccount  Reason = "service_account"
	ForeignNetwork  Reason = "foreign_network" // a token outside its networks
	ByManager       Reason = "by_manager"      // of a group
	Joined          Reason = "joined"
	Left            Reason = "left"
	Appointed       Reason = "appointed" // to manage a group
	Dismissed       Reason = "dismissed"
	ByDevice        Reason = "by_device" // a device authorization asked for it

	CellError   Reason = "cell_error"   // the kernel says that the code raised an error
	CellAborted Reason = "cell_aborted" // a cell before it did
	Unanswered  Reason = "unanswered"   // the connection ended before the kernel answered

	// Of accounts that a company decides about:

	NotAdmitted   Reason = "not_admitted"       // in none of the groups that may come in
	NoAccount     Reason = "no_account"         // and none is made
	MissingThere  Reason = "missing_at_source"  // the directory does not have them any more
	DisabledThere Reason = "disabled_at_source" // it says that the account is closed
	EndedThere    Reason = "ended_at_source"    // the provider ended the session
	NotVouched    Reason = "not_vouched_for"    // it said nothing about them for too long
	BadState      Reason = "bad_state"          // these are why a provider's answer was refused
	BadIssuer     Reason = "bad_issuer"
	BadNonce      Reason = "bad_nonce"
	BadToken      Reason = "bad_token"
	BadAnswer     Reason = "bad_answer"
	BadClock      Reason = "bad_clock"
	BadClient     Reason = "bad_client"
	ProviderError Reason = "provider_refused"
	TooManyGroups Reason = "too_many_groups"
	NotAsked      Reason = "not_asked_anew"
	Expired       Reason = "expired"
	Revoked       Reason = "revoked"
	WrongAddress  Reason = "wrong_address" // a credential that is bound to another
	FirstContact  Reason = "first_contact" // a key that its owner recognised on the page of a link
	Replayed      Reason = "replayed"      // a code or an answer that counted before
	Cloned        Reason = "cloned"        // a passkey whose counter went back
)

// A Target is what an action was done to.
type Target struct {
	Kind string `json:"kind,omitempty"` // "user", "workspace", "volume", "token", "secret", "class", "config", "server", "ssh session"
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"` // checked grammar, or escaped and cut to 64 bytes
}

// Attrs are the typed details of an event. Only the fields that belong to its
// action are set; there is no free-text field.
type Attrs struct {
	Class string   `json:"class,omitempty"`
	Image string   `json:"image,omitempty"` // digest
	Run   string   `json:"run,omitempty"`
	GPUs  []string `json:"gpus,omitempty"` // UUIDs
	Role  string   `json:"role,omitempty"`

	// Of a sign-in and its parts.
	Factor  string `json:"factor,omitempty"`  // "totp", "passkey", "recovery"
	Methods string `json:"methods,omitempty"` // as RFC 8176 calls them: "pwd otp mfa"
	Browser string `json:"browser,omitempty"` // id of one that somebody is known by

	Count  int64    `json:"count,omitempty"`
	Source string   `json:"source,omitempty"` // of a company account: "oidc:NAME", "ldap:NAME"
	Digest string   `json:"digest,omitempty"` // of a configuration file or a recording
	Status int      `json:"status,omitempty"` // HTTP status
	Host   string   `json:"host,omitempty"`   // canonical name of a host outside
	Port   int      `json:"port,omitempty"`
	Rule   string   `json:"rule,omitempty"`   // of the egress that allowed it, or of the filter that found it
	Up     int64    `json:"up,omitempty"`     // bytes out of the workspace
	Down   int64    `json:"down,omitempty"`   // bytes into it
	Millis int64    `json:"millis,omitempty"` // how long it took
	Group  string   `json:"group,omitempty"`
	Scopes []string `json:"scopes,omitempty"` // of a token
	Owner  string   `json:"owner,omitempty"`  // id of whose the target is

	// Of a decision about an image.
	Signer  string `json:"signer,omitempty"`  // who vouches for it
	Policy  string `json:"policy,omitempty"`  // hash of the policy file
	Root    string `json:"root,omitempty"`    // hash of the trusted root
	Verdict string `json:"verdict,omitempty"` // class and reason, from closed sets: "denied unsigned"

	// Of what the filter found.
	Mode   string `json:"mode,omitempty"`   // what was done about it
	Route  string `json:"route,omitempty"`  // the way it was on
	Input  bool   `json:"input,omitempty"`  // into the workspace
	Length string `json:"length,omitempty"` // a class of lengths: "8-15", "16-31", …
	Bytes  int64  `json:"bytes,omitempty"`  // that were not looked at by every rule
	Sum    string `json:"sum,omitempty"`    // keyed: equal for equal values, or for equal code

	// Of code that was run; Count says of how many runs, when they came too fast.
	Size   int64 `json:"size,omitempty"`   // bytes of the code
	Silent bool  `json:"silent,omitempty"` // pages run such code by themselves

	// Of an SSH key, a certificate or a session.
	Serial  uint64 `json:"serial,omitempty"`  // of a certificate
	Session string `json:"session,omitempty"` // its id, by which it is listed and its recording found
	Kind    string `json:"kind,omitempty"`    // shell, exec, sftp, forward, remote, agent
	Key     string `json:"key,omitempty"`     // fingerprint of the key; of a session, of the one that signed in
	Exit    int    `json:"exit,omitempty"`    // exit code; 128 and the signal's number
}

// An Event is one line of the journal. Append fills V, ID, TS, Seq, Boot and
// the chain; the caller gives the rest.
type Event struct {
	V       int       `json:"v"`
	ID      string    `json:"id"`
	TS      time.Time `json:"ts"`   // UTC
	Boot    string    `json:"boot"` // id of the server's start
	Seq     uint64    `json:"seq"`  // gap-free over the whole journal
	Actor   Actor     `json:"actor"`
	Action  Action    `json:"action"`
	Target  Target    `json:"target"`
	Outcome Outcome   `json:"outcome"`
	Reason  Reason    `json:"reason,omitempty"`
	Attrs   Attrs     `json:"attrs"`
	Prev    string    `json:"prev"` // hex SHA-256 of the line before
}

// An Actor is who did it, as far as known.
type Actor struct {
	ID      string `json:"id,omitempty"`
	Name    string `json:"name,omitempty"`    // of a known account
	Unknown string `json:"unknown,omitempty"` // keyed hash of a name that is no account: people type passwords there
	Method  string `json:"method,omitempty"`
	Session string `json:"session,omitempty"`
	IP      string `json:"ip,omitempty"`
}

// By returns the audit actor for who is asking.
func By(a bailey.Actor) Actor {
	return Actor{ID: a.UserID, Name: a.Name, Method: a.Method, Session: a.Session, IP: a.IP}
}

// Appender is what doors and services need of a journal.
type Appender interface {
	// Append makes the event durable before it returns. It may be called
	// concurrently; concurrent events share one sync. An error wraps
	// [ErrUnwritable].
	Append(ctx context.Context, e Event) error
}

// A Filter chooses events. Zero fields choose all.
type Filter struct {
	Since, Until time.Time
	Actor        string // name or id
	Action       string // an action, or a prefix ending in "."
	Target       string // id or name
	Outcome      Outcome
	IP           string
	About        []string // ids: of the actor, the target, or whose the target is; none: all
	After        uint64   // Seq greater than this
	Limit        int      // newest Limit events; 0 means 100, at most 10,000
}
