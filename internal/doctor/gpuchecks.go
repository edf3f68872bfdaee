package doctor

import (
	"fmt"
	"regexp"
	"strings"
)

// driver returns the version of NVIDIA's driver; "" when there is none.
func (h *host) driver() string {
	m := driverRE.FindStringSubmatch(h.line("/proc/driver/nvidia/version"))
	if m == nil {
		return ""
	}
	return m[1]
}

var driverRE = regexp.MustCompile(`\s([0-9]{3}\.[0-9]{1,3}(?:\.[0-9]{1,3})?)\s`)

func nvidiaToolkit(h *host) verdict {
	switch {
	case h.driver() == "" && h.Caps.GPUDriver:
		return warn("Docker has a runtime for NVIDIA GPUs, but no driver is loaded", "install the driver, or load it: modprobe nvidia")
	case h.driver() == "":
		return ok("there is no NVIDIA driver, hence no GPU to lease")
	case !h.Caps.GPUDriver:
		return warn("NVIDIA's driver "+h.driver()+" is loaded, but Docker cannot give GPUs to containers",
			"install nvidia-container-toolkit 1.19.1 or newer; then: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml; nvidia-ctk runtime configure --runtime=docker; systemctl restart docker")
	case h.Caps.CDI:
		return ok("by CDI")
	}
	return ok("by NVIDIA's runtime")
}

func nvidiaToolkitVersion(h *host) verdict {
	text := h.packages["nvidia-container-toolkit"]
	v := parseVersion(text)
	switch {
	case !v.known && h.driver() != "":
		return ok("its version is not known here; it should be at least 1.19.1")
	case !v.known:
		return ok("not installed")
	case v.before("1.17.8"):
		return fail(text+" lets a container become root on the host", "install nvidia-container-toolkit 1.19.1 or newer")
	case v.before("1.19.1"):
		return warn(text+" lacks a security fix", "install nvidia-container-toolkit 1.19.1 or newer")
	}
	return ok(text)
}

func nvidiaDriver(h *host) verdict {
	text := h.driver()
	if text == "" {
		return ok("no driver is loaded")
	}
	v := parseVersion(text)
	floors := map[int]string{535: "535.309.1", 580: "580.159.3", 595: "595.71.5"}
	shown := "535.309.01, 580.159.03 or 595.71.05"
	floor, supported := floors[v.major]
	switch {
	case v.major > 595:
		return ok(text)
	case !supported:
		return warn(fmt.Sprintf("%s is of branch R%d, which gets no fixes any more", text, v.major), "install "+shown+", or a newer branch")
	case v.before(floor):
		return warn(strings.TrimSpace(text)+" lacks security fixes; the driver is the widest way from a GPU workspace into the kernel", "install "+shown+", or newer")
	}
	return ok(text)
}
