resource "random_password" "rabbitmq" {
  length  = 32
  special = false # it goes into a URI
}

resource "aws_security_group" "rabbitmq" {
  name_prefix = "${var.name}-rabbitmq-"
  description = "AMQP and the management API, for the nodes of ${var.name}"
  vpc_id      = module.vpc.vpc_id

  # The zones of the broker's nodes talk to each other by means of Amazon's own.
  ingress {
    description     = "AMQP over TLS"
    from_port       = 5671
    to_port         = 5671
    protocol        = "tcp"
    security_groups = [module.eks.node_security_group_id]
  }

  ingress {
    description     = "Management API"
    from_port       = 443
    to_port         = 443
    protocol        = "tcp"
    security_groups = [module.eks.node_security_group_id]
  }

  lifecycle {
    create_before_destroy = true
  }
}

# Three nodes in three zones, as quorum queues need. It has no streams: topology.results stays quorum.
resource "aws_mq_broker" "rabbitmq" {
  broker_name                = var.name
  engine_type                = "RabbitMQ"
  engine_version             = "3.13"
  host_instance_type         = "mq.m7g.large"
  deployment_mode            = "CLUSTER_MULTI_AZ"
  publicly_accessible        = false
  auto_minor_version_upgrade = true
  subnet_ids                 = module.vpc.private_subnets
  security_groups            = [aws_security_group.rabbitmq.id]

  user {
    username = var.name
    password = random_password.rabbitmq.result
  }

  logs {
    general = true
  }
}

locals {
  # amqps://host:5671 becomes amqps://user:password@host:5671/%2F.
  rabbitmq_host       = replace(aws_mq_broker.rabbitmq.instances[0].endpoints[0], "amqps://", "")
  rabbitmq_uri        = "amqps://${var.name}:${random_password.rabbitmq.result}@${local.rabbitmq_host}/%2F"
  rabbitmq_management = aws_mq_broker.rabbitmq.instances[0].console_url
}
