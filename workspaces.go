package bailey

import "time"

// A Class is an administrator's recipe for workspaces. Its limits are data:
// they may change while the server runs and hold from the next start on.
type Class struct {
	Name        string        `json:"name"`
	Title       string        `json:"title"`
	Description string        `json:"description,omitempty"`
	Image       string        `json:"image"`        // catalogue name or digest as configured
	Digest      string        `json:"digest"`       // "sha256:…" that Image was resolved to; empty: not found
	CPUMillis   int64         `json:"cpu_millis"`   // thousandths of a core
	MemoryBytes int64         `json:"memory_bytes"` // memory = memory+swap
	ShmBytes    int64         `json:"shm_bytes"`    // size of /dev/shm
	TmpBytes    int64         `json:"tmp_bytes"`    // size of /tmp, charged to the memory limit
	Pids        int64         `json:"pids"`
	GPUs        int           `json:"gpus"`              // leased exclusively, by UUID
	IdleStop    time.Duration `json:"idle_stop"`         // 0: never
	StartLimit  time.Duration `json:"start_limit"`       // from create to Jupyter answering, after the image is there
	SelfCheck   string        `json:"self_check"`        // "cuda", "torch", "python" or "none"
	Groups      []string      `json:"groups,omitempty"`  // who may use it; empty: everyone
	Network     string        `json:"network,omitempty"` // "none", "proxied" or "bridge"; empty: none
	Egress      string        `json:"egress,omitempty"`  // the egress policy of a proxied class
	Reach       string        `json:"reach,omitempty"`   // what can be reached from inside, in words

	// Env is more environment of its workspaces, names by engine.EnvAllowed. It
	// is frozen with the run, so that what was started can be checked for ever.
	Env map[string]string `json:"env,omitempty"`

	// BasePath is the path below which Jupyter serves, frozen with the run too.
	// Empty means "/": an origin of its own. No configuration sets it.
	BasePath string `json:"base_path,omitempty"`
}

// A Quota bounds what a user, or a group as a whole, may have running at once.
// A zero field means no limit of that sort.
type Quota struct {
	Workspaces  int   `json:"workspaces"`
	CPUMillis   int64 `json:"cpu_millis"`
	MemoryBytes int64 `json:"memory_bytes"`
	GPUs        int   `json:"gpus"`
}

// A State is where a workspace is in its life.
type State string

// The states. A workspace is served only while it is Running.
const (
	Stopped  State = "stopped"
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
	Failed   State = "failed" // like Stopped, with a reason
)

// A Workspace is one user's instance of a class.
type Workspace struct {
	ID        string    `json:"id"`
	OwnerID   string    `json:"owner_id"`
	Owner     string    `json:"owner"` // the owner's name
	Name      string    `json:"name"`  // unique per owner
	Class     string    `json:"class"`
	Slug      string    `json:"slug"` // unguessable DNS label of its origin
	VolumeID  string    `json:"volume_id"`
	State     State     `json:"state"`
	Wanted    State     `json:"wanted"`           // Running or Stopped: what the reconciler works towards
	Reason    string    `json:"reason,omitempty"` // why it failed or was stopped, in words for its owner
	RunID     string    `json:"run_id,omitempty"` // the current or the last run
	CreatedAt time.Time `json:"created_at"`
	StartedAt time.Time `json:"started_at"`    // of the current run; zero: none
	ActiveAt  time.Time `json:"active_at"`     // last real activity
	SelfCheck string    `json:"self_check"`    // result in words; empty: not made yet
	GPUs      []string  `json:"gpus"`          // UUIDs leased to the current run
	URL       string    `json:"url,omitempty"` // filled by the doors, which know the origin
}

// A Run is one start of a workspace to its stop. It freezes what the class
// said at that moment.
type Run struct {
	ID          string    `json:"id"`
	WorkspaceID string    `json:"workspace_id"`
	OwnerID     string    `json:"owner_id"`
	UID         int       `json:"uid"`
	VolumeID    string    `json:"volume_id"`
	Class       Class     `json:"class"`
	Digest      string    `json:"digest"`       // image that was started
	Receipt     *Receipt  `json:"receipt"`      // who vouches for it; nil: started before anybody asked
	ContainerID string    `json:"container_id"` // the engine's id; empty until created
	Token       string    `json:"-"`            // Jupyter's token for this run; a secret
	GPUs        []string  `json:"gpus"`
	CreatedAt   time.Time `json:"created_at"`
	ReadyAt     time.Time `json:"ready_at"`
	EndedAt     time.Time `json:"ended_at"` // zero: not ended
	EndReason   string    `json:"end_reason,omitempty"`
}

// A RunRequest is what a start asks of the store, to be decided in one
// transaction.
type RunRequest struct {
	WorkspaceID string
	Run         Run              // ID, Class, Digest, Token set by the caller; UID, OwnerID, VolumeID, GPUs and CreatedAt by the store
	UserQuota   Quota            // of the owner
	GroupQuotas map[string]Quota // of each group the owner is in, for the group's members together
	GPUs        []string         // UUIDs that exist and are healthy, in order of preference
}

// A Volume is where a user's files live. It outlives its workspace.
type Volume struct {
	ID        string    `json:"id"`
	OwnerID   string    `json:"owner_id"`
	Owner     string    `json:"owner"`
	Name      string    `json:"name"` // unique per owner; the name of the workspace it was made for
	UID       int       `json:"uid"`
	CreatedAt time.Time `json:"created_at"`
	InUseBy   string    `json:"in_use_by,omitempty"` // id of the workspace that has it, if any
}

// A GPU is one card that can be leased.
type GPU struct {
	UUID  string `json:"uuid"`
	Model string `json:"model,omitempty"`
	Index int    `json:"index"`
}

// A Lease says that a run holds a GPU, alone.
type Lease struct {
	GPU         string    `json:"gpu"` // UUID
	RunID       string    `json:"run_id"`
	WorkspaceID string    `json:"workspace_id"`
	OwnerID     string    `json:"owner_id"`
	Since       time.Time `json:"since"`
}

// A Stage is one step of a launch, as it is published while it happens.
type Stage struct {
	Workspace string        `json:"workspace"`
	Run       string        `json:"run"`
	Name      string        `json:"name"`   // policy, image, lease, create, start, verify, agent, jupyter, ready, selfcheck, memory, failed, stopped
	Status    string        `json:"status"` // "begin", "done" or "failed"
	Detail    string        `json:"detail,omitempty"`
	At        time.Time     `json:"at"`
	Took      time.Duration `json:"took"` // of this stage, when it is done or failed
	Seq       int64         `json:"seq"`  // grows by one per workspace
}
