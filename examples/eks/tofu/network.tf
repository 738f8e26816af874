data "aws_availability_zones" "available" {
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  zones = slice(data.aws_availability_zones.available.names, 0, 3)
}

module "vpc" {
  source  = "terraform-aws-modules/vpc/aws"
  version = "~> 6.6"

  name = var.name
  cidr = var.cidr

  azs             = local.zones
  private_subnets = [for i, zone in local.zones : cidrsubnet(var.cidr, 3, i)]
  public_subnets  = [for i, zone in local.zones : cidrsubnet(var.cidr, 8, 224 + i)]
  intra_subnets   = [for i, zone in local.zones : cidrsubnet(var.cidr, 8, 232 + i)]

  # A gateway in each zone: sources are fetched through them, and traffic between zones is paid for.
  enable_nat_gateway     = true
  one_nat_gateway_per_az = true
  enable_dns_hostnames   = true

  # By this tag Karpenter finds the subnets of its nodes.
  private_subnet_tags = { "karpenter.sh/discovery" = var.name }
}
