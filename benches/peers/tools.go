//go:build tools

// Package peers pins the programs beside which rowproof is measured. It is never compiled: it only
// keeps them, and all that they need, in go.mod and go.sum.
package peers

import _ "github.com/pingcap/tiflow/sync_diff_inspector"
