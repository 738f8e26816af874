package simulator

import "math/rand/v2"

// chance draws what is left to chance: each kind of draw, for each worker, node or message, from a stream of its own. So systems that are
// compared on one seed stay paired when one of them makes a worker or a node more.
type chance struct {
	seed   uint64
	source *rand.PCG
	random *rand.Rand
}

// Kinds of draws.
const (
	drawBoot = iota
	drawConnect
	drawLeave
	drawNode
	drawDelay
	drawLoss
	drawCrash
	draws
)

func newChance(seed uint64) chance {
	source := rand.NewPCG(0, 0)
	return chance{seed: seed, source: source, random: rand.New(source)}
}

// of is the stream of the nth draw of a kind for what has a number. It is good until the next call.
func (c *chance) of(kind, number, nth int) *rand.Rand {
	const golden = 0x9e3779b97f4a7c15 // numbers that follow each other start far apart
	c.source.Seed((c.seed*draws+uint64(kind))*golden, uint64(number)*golden+uint64(nth))
	return c.random
}
